"""A user's files: what is read, and what each mistake in them is told."""

import json

import numpy as np
import pytest
import seqio

from po_jax import files
from po_jax.data import records
from tasks import jsonl, vocabularies
from tests import buckets


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    """Tasks named `own_*` on a folder with one line for each form of a comparison."""
    folder = tmp_path_factory.mktemp("own")
    lines = [
        {"prompt": "Say a.", "chosen": "a", "rejected": "b", "extra": 1},
        {"prompt": "Say b.", "chosen": "b", "rejected": "c", "preference": 0.75},
        {"prompt": "Say c.", "chosen": "d", "rejected": "c", "preference": 0},
    ]
    (folder / "train.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    lines = [{"prompt": "Say a.", "summary": "a"}, {"prompt": "Say b.", "completion": "b"}]
    (folder / "validation.jsonl").write_text("\n".join(map(json.dumps, lines)))
    jsonl.register("own", folder, seqio.ByteVocabulary())


def examples(task: str, split: str) -> list[dict]:
    dataset = seqio.get_mixture_or_task(task).get_dataset(None, split, shuffle=False)
    return list(dataset.as_numpy_iterator())


def text(ids) -> str:
    assert ids[-1] == 1
    return seqio.ByteVocabulary().decode([int(i) for i in ids])


def test_comparisons(comparisons):
    rows = examples("own_comparisons", "train")
    assert [text(row["inputs"]) for row in rows] == ["Say a.", "Say b.", "Say c."]
    assert [text(row["completion_1"]) for row in rows] == ["a", "b", "d"]
    assert [text(row["completion_2"]) for row in rows] == ["b", "c", "c"]
    assert [row["preference"] for row in rows] == [1.0, 0.75, 0.0]


def test_a_study_finds_the_comparisons_that_it_labelled(tmp_path, monkeypatch):
    jsonl.register("labelled", vocabulary=seqio.ByteVocabulary())
    prompts, labelled = tmp_path / "prompts", tmp_path / "labelled"
    for folder, name, chosen in (
        (prompts, "train", "of people"),
        (labelled, "comparisons.train", "of the study"),
    ):
        folder.mkdir()
        line = {"prompt": "Say a.", "chosen": chosen, "rejected": "b"}
        (folder / f"{name}.jsonl").write_text(json.dumps(line))
    monkeypatch.setenv(jsonl.FOLDER_VARIABLE, str(prompts))
    (row,) = examples("labelled_comparisons", "train")
    assert text(row["completion_1"]) == "of people"
    monkeypatch.setenv(jsonl.COMPARISONS_VARIABLE, str(labelled))
    (row,) = examples("labelled_comparisons", "train")
    assert text(row["completion_1"]) == "of the study"
    (row,) = examples("labelled_prompts", "train")
    assert row["answers"].tolist() == [b"of people"]


def test_data_in_a_bucket(monkeypatch):
    jsonl.register("far", vocabulary=seqio.ByteVocabulary())
    with buckets.in_memory():
        line = json.dumps({"prompt": "Say a.", "chosen": "a", "rejected": "b"})
        files.absolute("gs://mine/data/train.jsonl").write_text(line)
        monkeypatch.setenv(jsonl.FOLDER_VARIABLE, "gs://mine/data")
        (row,) = examples("far_comparisons", "train")
        assert text(row["completion_1"]) == "a"
        with pytest.raises(
            ValueError, match=r"no file at gs://mine/data/test.jsonl, only \['train.jsonl'\]"
        ):
            examples("far_prompts", "test")
    monkeypatch.setenv(jsonl.FOLDER_VARIABLE, "s3://mine/data")
    with pytest.raises(ValueError, match="expected a local path or gs://, got another store"):
        examples("far_prompts", "test")


def test_demonstrations_and_prompts(comparisons):
    rows = examples("own_sft", "validation")
    assert [(text(row["inputs"]), text(row["targets"])) for row in rows] == [
        ("Say a.", "a"),
        ("Say b.", "b"),
    ]
    prompts = examples("own_prompts", "validation")
    assert [row["answers"].tolist() for row in prompts] == [[b"a"], [b"b"]]
    assert [row["answers"].tolist() for row in examples("own_prompts", "train")] == [
        [b"a"],
        [b"b"],
        [b"c"],  # of a pair whose label says that the rejected one is better
    ]


def test_rouge_is_computed_by_seqios_evaluator(comparisons):
    raw = {"validation": {"inputs": "Say a b.", "targets": "a b", "answers": ["a b", "q"]}}
    result = seqio.test_utils.test_postprocessing("own_sft", raw, predict_output=["a b"])
    assert result == {"rouge1": 100, "rouge2": 100, "rougeL": 100}


def test_preference_accuracy_of_a_task_puts_scores_in_the_order_of_the_examples(comparisons):
    task = seqio.get_mixture_or_task("own_comparisons")
    (metric,) = task.metric_objs
    found = metric.from_model_output(
        inputs=None,
        model_output=np.array([-0.5, 9.9, 2.0, -1.0]),
        features=None,
        indices_2d=np.array([(0, 2), (0, 2), (0, 0), (0, 1)]),
        mask=np.array([1, 0, 1, 1]),
    )
    rows = examples("own_comparisons", "train")
    scores, details = found.actual_compute(rows, task.output_features)
    assert scores == {"preference_accuracy": pytest.approx(2 / 3), "comparisons": 3}
    assert details["targets"] == [1.0, 0.75, 0.0]
    assert list(details["score"]) == [2.0, -1.0, -0.5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a", ', "line 2: expected JSON, got"),
        ('["prompt"]', "line 2: expected a JSON object"),
        ('{"prompt": "a", "chosen": "b"}', "line 2: expected the key 'rejected', got only"),
        ('{"prompt": "a", "chosen": " ", "rejected": "b"}', "line 2: 'chosen' is empty"),
        (
            '{"prompt": [], "chosen": "c", "rejected": "b"}',
            "line 2: 'prompt' is empty",
        ),
        (
            '{"prompt": "a", "chosen": "c", "rejected": "b", "preference": 1.5}',
            "line 2: expected 'preference' in \\[0, 1\\], got 1.5",
        ),
        (
            '{"prompt": "a", "chosen": "c", "rejected": "b", "preference": NaN}',
            "line 2: expected 'preference' in \\[0, 1\\], got nan",
        ),
        (
            '{"prompt": "a", "chosen": "c", "rejected": "b", "preference": "1"}',
            "line 2: expected 'preference' to be a number, got '1'",
        ),
        (b'{"prompt": "\xff"}', "line 2: expected UTF-8"),
    ],
)
def test_mistakes_are_told_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "train.jsonl"
    good = b'{"prompt": "a", "chosen": "c", "rejected": "b"}\n'
    path.write_bytes(good + (line if isinstance(line, bytes) else line.encode()))
    with pytest.raises(
        ValueError, match=f"train.jsonl, {message}".replace("train.jsonl, '", ".*'")
    ):
        records.rows(path, records.comparison)


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no file at .*absent.jsonl"):
        records.rows(tmp_path / "absent.jsonl", records.prompt)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="empty file: .*empty.jsonl"):
        records.rows(tmp_path / "empty.jsonl", records.prompt)


def test_importing_registers_tasks_that_ask_for_their_folder(monkeypatch):
    monkeypatch.delenv(jsonl.FOLDER_VARIABLE, raising=False)
    task = seqio.get_mixture_or_task("jsonl_comparisons")
    assert task.output_features["inputs"].vocabulary == vocabularies.docstrings()
    with pytest.raises(ValueError, match="expected PO_JAX_JSONL_DIR"):
        task.get_dataset(None, "train", shuffle=False)
