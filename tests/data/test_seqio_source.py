"""Batches of seqio tasks against the files that they come from."""

import json
import logging
import re

import numpy as np
import pytest
import seqio

from po_jax.data import seqio_source
from po_jax.data.layouts import Comparisons, Prompts, Supervised
from tasks import jsonl, tldr

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
    assert [decode(ids) for ids in batch.arrays["prompt"]] == ["b0", "b1", "b2"]


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


def test_another_vocabulary_replaces_the_tasks_own(tasks):
    vocabulary = jsonl.vocabularies.docstrings()
    stream = seqio_source.stream(
        "feed_b_sft", "train", Supervised(LENGTHS), 1, vocabulary=vocabulary
    )
    arrays = next(stream.one_pass()).arrays
    for name, text in (("encoder_input_tokens", "b0"), ("decoder_target_tokens", "z")):
        ids = vocabulary.encode(text) + [1]
        assert np.trim_zeros(arrays[name][0]).tolist() == ids
    again = seqio_source.stream("feed_b_sft", "train", Supervised(LENGTHS), 1)
    assert decode(next(again.one_pass()).arrays["encoder_input_tokens"][0]) == "b0"


@pytest.mark.parametrize(
    ("task", "split", "layout", "message"),
    [
        ("feed_absent", "train", Prompts, "feed_absent"),
        ("feed_a_sft", "dev", Supervised, "a split of feed_a_sft in .*, got 'dev'"),
        ("feed_a_sft", "test", Supervised, "no file at .*test.jsonl"),
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
        ({"preference": 1.5}, r"train: expected preferences in \[0, 1\], got 1.5 in example 2"),
        ({"preference": float("nan")}, "got nan in example 2"),
    ],
)
def test_a_task_of_someone_elses_is_checked(change, message):
    good = {"inputs": "p", "completion_1": "a", "completion_2": "b", "preference": 1.0}
    name = "feed_" + re.sub(r"\W", "_", message)
    jsonl.registration.add_comparisons(name, lambda split: [good, {**good, **change}], BYTES)
    with pytest.raises(ValueError, match=message):
        seqio_source.stream(name, "train", Comparisons(LENGTHS), 2)


def test_human_comparisons_lose_nothing_on_the_way(shared_data, monkeypatch):
    monkeypatch.setenv(tldr.FOLDER_VARIABLE, str(shared_data / "tldr"))
    layout = Comparisons({"inputs": 4000, "targets": 900})
    stream = seqio_source.stream("tldr_comparisons", "validation", layout, 53, vocabulary=BYTES)
    better = []
    for batch in stream.one_pass():
        chosen = (batch.arrays["preference"] == 0).astype(int)
        pairs = batch.arrays["completion"][batch.valid]
        better += [decode(pair[i]) for pair, i in zip(pairs, chosen, strict=False)]
    with (shared_data / "tldr" / "comparisons.validation.jsonl").open() as file:
        lines = [json.loads(line) for line in file]
    assert better == [line["summaries"][line["choice"]]["text"].strip() for line in lines]
    assert len(better) == 742
