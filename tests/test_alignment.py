"""Four lines of Python: the same run as by gin, on a data frame, back to Hugging Face's format."""

import json

from etils import epath
import numpy as np
import pytest
import seqio

import po_jax
from po_jax.alignment import Policy
from po_jax.checkpoints.load import open_checkpoint
from po_jax.data import in_memory
from po_jax.sampling import Strategy
from tasks import vocabularies
from tests.launch import hub_t5gemma, tiny_policies
from tests.launch.test_algorithms import command

RECORDS = [
    {"prompt": f"Add {n} numbers.", "chosen": "Sum of numbers.", "rejected": f"Returns {n}."}
    for n in range(11)
]
LENGTHS = {"inputs": 16, "targets": 6}


class Frame:
    """A data frame as far as it is asked."""

    def to_dict(self, orient):
        assert orient == "records"
        return RECORDS


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alignment")
    tiny_policies.write(folder, {"sft": 0})
    return Policy.load(folder / "sft", vocabularies.docstrings())


def align(start, folder, **options):
    settings = {"model_dir": str(folder), "steps": 2, "batch_size": 8, "lengths": LENGTHS}
    return po_jax.Alignment(start, Frame(), **{**settings, **options})


def test_it_is_the_run_that_gin_configures(start, tmp_path, monkeypatch):
    from launch import train

    align(start, tmp_path / "python").run()
    for split in ("train", "validation"):
        lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    monkeypatch.setenv("PO_JAX_JSONL_DIR", str(tmp_path))
    folder = tmp_path / "gin"
    (tmp_path / "model.gin").write_text(tiny_policies.GIN)
    more = [f"--gin.INITIAL_CHECKPOINT_PATH={start.checkpoint}"]
    assert train.main(command(tmp_path, "offline", "ipo", folder, *more)) == 0
    one, other = (open_checkpoint(tmp_path / name).parameters for name in ("python", "gin"))
    assert one.keys() == other.keys()
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf.value(), other[name].value(), err_msg=name)


def test_a_judge_makes_it_online(start, tmp_path):
    asked = []

    def shorter(prompt, first, second):
        asked.append(prompt)
        return float(len(first) < len(second))

    judge = po_jax.CallableJudge(shorter, start.vocabulary, antisymmetric=True)
    aligned = align(start, tmp_path / "run", judge=judge, betas=(0.25, 0.25), steps=1).run()
    assert set(asked) <= {record["prompt"] for record in RECORDS} and len(asked) == 8
    texts = aligned.complete([record["prompt"] for record in RECORDS[:3]], prompt_length=16)
    assert len(texts) == 3 and all(isinstance(text, str) for text in texts)
    assert texts == aligned.complete([r["prompt"] for r in RECORDS[:3]], prompt_length=16)


def test_what_is_saved_is_what_was_trained(start, tmp_path):
    start.save(tmp_path / "saved")
    saved, trained = open_checkpoint(tmp_path / "saved"), open_checkpoint(start.checkpoint)
    assert saved.format == "hugging_face"
    for name, leaf in trained.parameters.items():
        np.testing.assert_array_equal(saved.parameters[name].value(), leaf.value())
    again = Policy.load(tmp_path / "saved", start.vocabulary)
    assert again.language_model == start.language_model
    with pytest.raises(FileExistsError):
        start.save(tmp_path / "saved")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "record 1: expected the key 'rejected'"),
        ({"prompt": " ", "chosen": "b", "rejected": "c"}, "record 1: 'prompt' is empty"),
        (
            {**RECORDS[0], "preference": 1.5},
            r"record 1: .* in \[0, 1\], got 1.5",
        ),
    ],
)
def test_a_bad_record_is_named(record, message, start):
    with pytest.raises(ValueError, match=message):
        in_memory.comparisons([RECORDS[0], record], start.vocabulary)


def test_a_vocabulary_too_large_is_refused(start):
    large = vocabularies.t5(vocabularies.DOCSTRINGS_MODEL)  # with a hundred sentinels on top
    with pytest.raises(ValueError, match="at most 8192 ids, .*got 8292"):
        Policy.load(start.checkpoint, large)


def test_a_vocabulary_with_another_end_is_refused(start):
    class Words:
        pad_id, eos_id, vocab_size = 0, 3, 100

        def encode(self, text):
            return [5]

        def decode(self, ids):
            return ""

    with pytest.raises(ValueError, match="padding 0 and EOS 1, as the model has them, got 0 and 3"):
        Policy.load(start.checkpoint, Words())


def test_the_package_tells_what_it_has():
    assert {"Alignment", "Policy", "Sampler"} <= set(dir(po_jax))
    with pytest.raises(AttributeError, match="no attribute 'Trainee'"):
        po_jax.Trainee  # noqa: B018


def test_a_t5gemma_answers_and_is_saved_as_it_was(tmp_path):
    directory = epath.Path(tmp_path / "hub")
    before = hub_t5gemma.write(directory)
    policy = Policy.load(directory, seqio.ByteVocabulary())
    assert policy.language_model.special_ids == hub_t5gemma.IDS
    answers = policy.complete(
        ["one", "a longer one"], strategy=Strategy(max_length=3), prompt_length=16
    )
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)
    policy.save(tmp_path / "saved")
    saved = open_checkpoint(tmp_path / "saved")
    for name, leaf in saved.parameters.items():
        np.testing.assert_array_equal(leaf.value(), before[name], err_msg=name)
