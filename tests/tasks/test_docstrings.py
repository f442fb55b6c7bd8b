"""The tasks on docstrings, with two pairs in place of twenty thousand."""

import json

import pytest
import seqio

from po_jax import files
from tasks import docstring_pairs, docstrings
from tests import buckets

PAIRS = {
    "train": [
        docstring_pairs.Pair(
            "a", "a.f", "add\na.add(rows)", "Each row counts.", "Adds up the rows."
        )
    ],
    "validation": [docstring_pairs.Pair("b", "b.g", "count\nb.count()", "", "Counts the rows.")],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(docstrings.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(docstring_pairs, "load", lambda folder, more: PAIRS | {"test": more})
    return tmp_path


def only_example(task: str, split: str) -> dict:
    (example,) = seqio.get_mixture_or_task(task).get_dataset(None, split, shuffle=False)
    return {name: value.numpy() for name, value in example.items()}


def text(ids) -> str:
    assert ids[-1] == 1 and ids[0] > 2
    return docstrings.vocabularies.docstrings().decode([int(i) for i in ids])


def test_document_and_summary():
    example = only_example("docstrings_sft", "train")
    assert text(example["inputs"]) == "add a.add(rows) Each row counts."
    assert text(example["targets"]) == "Adds up the rows."
    example = only_example("docstrings_prompts", "validation")
    assert text(example["inputs"]) == "count b.count()"
    assert example["answers"].tolist() == [b"Counts the rows."]


def test_more_packages_by_environment(monkeypatch):
    assert docstrings._pairs("test") == []
    monkeypatch.setenv(docstrings.MORE_VARIABLE, "torch  sympy")
    assert docstrings._pairs("test") == ["torch", "sympy"]


def test_comparisons_are_read_from_the_folder(cache):
    with pytest.raises(ValueError, match="no file at .*comparisons.train.jsonl"):
        only_example("docstrings_comparisons", "train")
    line = {"prompt": "Empty rows too.", "chosen": "Rows.", "rejected": "Row", "preference": 0.8}
    (cache / "comparisons.train.jsonl").write_text(json.dumps(line))
    example = only_example("docstrings_comparisons", "train")
    assert (text(example["completion_1"]), text(example["completion_2"])) == ("Rows.", "Row")
    assert example["preference"] == pytest.approx(0.8)


def test_comparisons_in_a_bucket_and_pairs_here(monkeypatch):
    wanted = []

    def load(folder, more):
        wanted.append(str(folder))
        return PAIRS

    monkeypatch.setattr(docstring_pairs, "load", load)
    monkeypatch.setenv(docstrings.FOLDER_VARIABLE, "gs://mine/data")
    with buckets.in_memory():
        line = {"prompt": "Empty rows too.", "chosen": "Rows.", "rejected": "Row"}
        files.absolute("gs://mine/data/comparisons.train.jsonl").write_text(json.dumps(line))
        example = only_example("docstrings_comparisons", "train")
        assert text(example["completion_1"]) == "Rows."
        assert only_example("docstrings_prompts", "train")["answers"].tolist() == [
            b"Adds up the rows."
        ]
    assert wanted == [str(files.absolute(docstrings.DEFAULT_FOLDER))]


def test_swapped_comparisons_have_the_line_of_another_function(monkeypatch):
    lines = ["Sorts.", "Counts.", "Counts.", "Adds up.", "Ends."]
    pairs = [
        docstring_pairs.Pair("a", f"a.{number}", f"heading {number}", "", line)
        for number, line in enumerate(lines)
    ]
    monkeypatch.setattr(docstrings, "_pairs", lambda split: pairs)
    monkeypatch.setattr(docstrings, "NEAR", 4)
    rows = docstrings._swapped("train")
    assert rows == docstrings._swapped("train")
    assert {row["inputs"] for row in rows} >= {"heading 0", "heading 3", "heading 4"}
    for row in rows:
        own = lines[int(row["inputs"].split()[1])]
        assert row["completion_1"] == own and row["preference"] == 1.0
        assert row["completion_2"] in set(lines) - {own}
