"""Batches of seqio tasks against the files that they come from."""

import json
import logging
import re

import numpy as np
import pytest
import seqio

from po_jax.data import records, seqio_source
from po_jax.data.layouts import Comparisons, Prompts, Supervised
from tasks import jsonl, registration, tldr

LENGTHS = {"inputs": 8, "targets": 5}
BYTES = seqio.ByteVocabulary()


def write(folder, split: str, lines: list[dict]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Comparisons `feed_a` (11) and `feed_b` (5) and a mixture of them, 1 to 3."""
    root = tmp_path_factory.mktemp("feed")
    for name, size in (("a", 11), ("b", 5)):
        lines = [
            {"prompt": f"{name}{i}", "chosen": "x" * (i % 3 + 1), "rejected": "y", "summary": "z"}
            for i in range(size)
        ]
        write(root / name, "train", lines)
        write(root / name, "validation", [{**lines[0], "prompt": "long prompt", "chosen": "12345"}])
        jsonl.register(f"feed_{name}", root / name, BYTES)
    names = [("feed_a_comparisons", 1.0), ("feed_b_comparisons", 3.0)]
    seqio.MixtureRegistry.add("feed_mixture", names)
    return root


def decode(ids) -> str:
    return BYTES.decode([int(i) for i in ids])


def test_comparisons_hold_what_the_file_says_in_random_places(tasks):
    stream = seqio_source.stream("feed_a_comparisons", "train", Comparisons(LENGTHS), 11, seed=1)
    places = []
    for epoch in range(6):
        arrays = stream.batch(epoch).arrays
        prompts = [decode(ids) for ids in arrays["prompt"]]
        assert sorted(prompts) == sorted(f"a{i}" for i in range(11))
        for prompt, pair, label in zip(
            prompts, arrays["completion"], arrays["preference"], strict=True
        ):
            chosen = int(label == 0)
            assert decode(pair[chosen]) == "x" * (int(prompt[1:]) % 3 + 1)
            assert decode(pair[1 - chosen]) == "y"
            places.append(chosen)
    # 66 fair coins have a standard deviation of 4.1.
    assert 33 - 4 * 4.1 < sum(places) < 33 + 4 * 4.1


def test_prompts_come_with_their_texts(tasks):
    stream = seqio_source.stream("feed_b_prompts", "train", Prompts(LENGTHS), 3)
    batch = next(stream.one_pass())
    assert batch.texts["inputs"] == ["b0", "b1", "b2"]
    assert batch.texts["answers"] == [["z"]] * 3
    assert batch.texts["where"] == [f"feed_b_prompts, train, example {i}" for i in (1, 2, 3)]
    assert [decode(ids) for ids in batch.arrays["prompt"]] == ["b0", "b1", "b2"]


def test_texts_come_through_as_they_were(tmp_path):
    texts = ["one\u2028two\u0085three\r\n", "\ufeff nul \0", "\U0001f600 \x1c caf\u00e9 cafe\u0301"]
    write(tmp_path, "train", [{"prompt": text, "completion": text} for text in texts])
    jsonl.register("feed_texts", tmp_path, BYTES)
    stream = seqio_source.stream("feed_texts_prompts", "train", Prompts({"inputs": 64}), 3)
    batch = next(stream.one_pass())
    assert batch.texts["inputs"] == texts
    assert batch.texts["answers"] == [[text] for text in texts]
    assert [decode(ids) for ids in batch.arrays["prompt"]] == texts


def test_a_mixture_draws_at_its_rates(tasks):
    stream = seqio_source.stream("feed_mixture", "train", Comparisons(LENGTHS), 16)
    for step in range(3):
        names = [decode(ids)[0] for ids in stream.batch(step).arrays["prompt"]]
        assert (names.count("a"), names.count("b")) == (4, 12)


def test_what_is_cut_is_counted_and_reported_once(tasks, caplog):
    with caplog.at_level(logging.WARNING, "po_jax"):
        stream = seqio_source.stream("feed_a_comparisons", "validation", Comparisons(LENGTHS), 1)
        batch = stream.batch(0).arrays
        stream.batch(1)
    assert [record.getMessage() for record in caplog.records] == [
        "feed_a_comparisons, validation: 1 of 1 inputs are longer than 8 tokens; they are cut",
        "feed_a_comparisons, validation: 1 of 1 completion_1 are longer than 5 tokens; "
        "they are cut and lose their EOS",
    ]
    assert decode(batch["prompt"][0]) == "long pro"
    chosen = batch["completion"][0, int(batch["preference"][0] == 0)]
    assert decode(chosen) == "12345" and 1 not in chosen


def test_what_was_cut_before_gets_no_eos(tmp_path):
    """Completions that `launch.label` cut at 6 tokens, read with room for 12."""
    ends = {"chosen_ended": False, "rejected_ended": True, "completion_ended": False}
    lines = [
        {"prompt": "p", "chosen": "abcdef", "rejected": "xyz", "completion": "uvw", **ends},
        {"prompt": "q", "chosen": "abcdef", "rejected": "x", "completion": "u"},
        {"prompt": "r", "chosen": "a", "rejected": "x", "completion": "u", **ends},
    ]
    write(tmp_path, "train", lines)
    jsonl.register("feed_cut", tmp_path, BYTES)
    layout = Comparisons({"inputs": 8, "targets": 12})
    pairs = next(seqio_source.stream("feed_cut_comparisons", "train", layout, 3).one_pass()).arrays
    found = {}
    for pair, mask in zip(pairs["completion"], pairs["mask"], strict=True):
        for ids, kept in zip(pair, mask, strict=True):
            found.setdefault(decode(ids), set()).add(tuple(ids[kept][-1:] == 1))
    assert found == {
        "abcdef": {(False,), (True,)},
        "xyz": {(True,)},
        "x": {(True,)},
        "a": {(False,)},
    }
    layout = Supervised({"inputs": 8, "targets": 12})
    arrays = next(seqio_source.stream("feed_cut_sft", "train", layout, 3).one_pass()).arrays
    byte = dict(zip("uvw", BYTES.encode("uvw"), strict=True))
    assert [np.trim_zeros(ids).tolist() for ids in arrays["decoder_target_tokens"]] == [
        [byte["u"], byte["v"], byte["w"]],
        [byte["u"], 1],
        [byte["u"]],
    ]


def test_tokens_are_those_of_the_tasks_vocabulary(tasks):
    vocabulary = jsonl.vocabularies.docstrings()
    jsonl.register("feed_pieces", tasks / "b", vocabulary)
    for task, words in (("feed_pieces_sft", vocabulary), ("feed_b_sft", BYTES)):
        arrays = next(seqio_source.stream(task, "train", Supervised(LENGTHS), 1).one_pass()).arrays
        for name, text in (("encoder_input_tokens", "b0"), ("decoder_target_tokens", "z")):
            assert np.trim_zeros(arrays[name][0]).tolist() == words.encode(text) + [1]


class Padded3(seqio.ByteVocabulary):
    """Pads with id 3, as vocabularies other than T5's may."""

    pad_id = 3


def test_rows_are_filled_up_with_the_vocabularys_padding(tasks):
    jsonl.register("feed_padded", tasks / "b", Padded3())
    stream = seqio_source.stream("feed_padded_prompts", "train", Prompts(LENGTHS), 1)
    prompt = next(stream.one_pass()).arrays["prompt"]
    assert prompt[0].tolist() == [*BYTES.encode("b0"), 1] + [3] * 5


@pytest.mark.parametrize(
    ("task", "split", "layout", "message"),
    [
        ("feed_absent", "train", Prompts, "no task 'feed_absent' is registered. Nearest: feed"),
        ("feed_a_promts", "train", Prompts, "registered. Nearest: feed_a_prompts, "),
        ("feed_mixtures", "train", Prompts, "registered. Nearest: feed_mixture, "),
        ("", "train", Prompts, "no task '' is registered"),
        ("feed_a_sft", "dev", Supervised, "a split of feed_a_sft in .*, got 'dev'"),
        ("feed_a_sft", "test", Supervised, "test.jsonl, only .'train.jsonl', 'valid"),
        ("feed_a_prompts", "train", Supervised, "feed_a_prompts with .'targets'., got only"),
        ("feed_a_sft", "train", Comparisons, "with .'completion_1', 'completion_2'."),
    ],
)
def test_what_is_not_there_is_named(tasks, task, split, layout, message):
    with pytest.raises(ValueError, match=message):
        seqio_source.stream(task, split, layout(LENGTHS), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completion_2": ""}, "train: completion_2 is empty in example 2"),
        (
            {"completion_2": "", "completion_2_ended": False},
            "train: completion_2 is empty in examp",
        ),
        ({"preference": 1.5}, r"train: expected preferences in \[0, 1\], got 1.5 in example 2"),
        ({"preference": float("nan")}, "got nan in example 2"),
    ],
)
def test_a_task_of_someone_elses_is_checked(change, message):
    good = {"inputs": "p", "completion_1": "a", "completion_2": "b", "preference": 1}
    good |= dict.fromkeys(change.keys() - good.keys(), True)
    name = "feed_" + re.sub(r"\W", "_", f"{message} {len(change)}")
    jsonl.registration.add_comparisons(name, lambda split: [good, {**good, **change}], BYTES)
    with pytest.raises(ValueError, match=message):
        seqio_source.stream(name, "train", Comparisons(LENGTHS), 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "expected rows of a split, got none"),
        ([{"inputs": "a", "answers": []}, {"inputs": "b"}], "expected .'answers'. in row 2, got"),
        (
            [{"inputs": b"caf\xe9", "answers": []}],
            "train: expected inputs_pretokenized in UTF-8, got",
        ),
    ],
)
def test_a_reader_of_someone_elses_is_checked(rows, message):
    name = f"feed_rows_{len(rows)}"
    jsonl.registration.add_prompts(name, lambda split: rows, BYTES)
    with pytest.raises(ValueError, match=message):
        seqio_source.stream(name, "train", Prompts(LENGTHS), 2)


def test_human_comparisons_lose_nothing_on_the_way(shared_data):
    file = shared_data / "tldr" / "comparisons.validation.jsonl"
    registration.add_comparisons(
        "feed_tldr", lambda split: records.rows(file, tldr.comparison), BYTES
    )
    layout = Comparisons({"inputs": 4000, "targets": 900})
    stream = seqio_source.stream("feed_tldr", "validation", layout, 53)
    better = []
    for batch in stream.one_pass():
        chosen = (batch.arrays["preference"] == 0).astype(int)
        pairs = batch.arrays["completion"][batch.valid]
        better += [decode(pair[i]) for pair, i in zip(pairs, chosen, strict=False)]
    with file.open() as lines:
        expected = [json.loads(line) for line in lines]
    assert better == [line["summaries"][line["choice"]]["text"].strip() for line in expected]
    assert len(better) == 742


def exact(targets, predictions):
    return {"exact": sum(map(str.__eq__, targets, predictions)) / len(targets)}


def longest(targets, predictions):
    return {"longest": seqio.metrics.Scalar(max(map(len, predictions)))}


def strip_and_tag(text, example, is_target=False):
    """Both sides see the example, its texts as bytes."""
    assert example["inputs"].startswith(b"p") and example["answers"][-1] == b"b"
    return text.strip() if is_target else text.strip().removesuffix("!")


def test_a_tasks_own_metrics_are_computed_of_completions():
    rows = [
        {"inputs": "p1", "targets": " a ", "answers": ["a", "b"]},
        {"inputs": "p2", "targets": "b", "answers": ["b"]},
    ]
    task = registration.add_sft("feed_rows", lambda split: rows, BYTES)
    seqio.TaskRegistry.add(
        "feed_measured",
        source=task.source,
        preprocessors=task.preprocessors,
        output_features=task.output_features,
        postprocess_fn=strip_and_tag,
        metric_fns=[exact, longest],
    )
    metrics = seqio_source.task_metrics("feed_measured")
    stream = seqio_source.stream("feed_measured", "train", Prompts(LENGTHS), 2)
    texts = next(stream.one_pass()).texts
    assert metrics(texts, ["a!", "c"]) == {"exact": 0.5, "longest": 1.0}
    # Prompts alone have no targets: the first of the answers is one.
    del texts["targets"]
    assert metrics(texts, ["a", "b "]) == {"exact": 1.0, "longest": 1.0}


def test_rouge_is_the_metric_of_a_task_to_imitate(tasks):
    metrics = seqio_source.task_metrics("feed_a_sft")
    texts = {"inputs": ["x", "y"], "targets": ["a b", "c"], "answers": [["a b", "q"], ["c"]]}
    assert metrics(texts, [" q ", "d"]) == {"rouge1": 50.0, "rouge2": 0.0, "rougeL": 50.0}


@pytest.mark.parametrize("task", ["feed_a_prompts", "feed_a_comparisons", "feed_mixture"])
def test_a_task_without_metrics_has_none(tasks, task):
    assert seqio_source.task_metrics(task) is None
