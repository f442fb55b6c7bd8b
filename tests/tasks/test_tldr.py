"""The schema of the release, on a line written for the test and on the real files."""

import copy
import json

import numpy as np
import pytest
import seqio

from po_jax.data import records
from tasks import tldr

LINE = {
    "info": {"id": "x", "post": "I lost my cat.", "title": "Cat", "subreddit": "pets"},
    "summaries": [{"text": " Cat lost.", "policy": "a"}, {"text": "Found it.", "policy": "b"}],
    "choice": 1,
}


def test_a_comparison():
    assert tldr.comparison(LINE, "here") == {
        "inputs": "summarize: SUBREDDIT: r/pets\nTITLE: Cat\nPOST: I lost my cat.",
        "completion_1": "Cat lost.",
        "completion_2": "Found it.",
        "preference": 0.0,
    }
    assert tldr.prompt("I lost my cat.", None, None) == "summarize: POST: I lost my cat."


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("choice", 2, "'choice' to be 0 or 1, got 2"),
        ("choice", None, "'choice' to be 0 or 1, got None"),
        ("summaries", [{"text": "one"}], "two 'summaries'"),
        ("summaries", ["one", "two"], "two 'summaries'"),
        ("summaries", [{"text": "one"}, {"text": ""}], "'text' is empty"),
        ("info", None, "'info' to be an object, got None"),
        ("info", {"title": "Cat"}, "expected the key 'post'"),
        ("info", {"post": "x", "title": 5}, "'title' to be a string, got 5"),
        ("info", {"post": "x", "subreddit": ["a"]}, "'subreddit' to be a string, got"),
        ("choice", [1], "'choice' to be 0 or 1, got"),
    ],
)
def test_lines_of_another_schema_are_told_with_file_and_line(tmp_path, key, value, message):
    wrong = copy.deepcopy(LINE)
    wrong[key] = value
    path = tmp_path / "comparisons.train.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps(wrong))
    with pytest.raises(ValueError, match=f"comparisons.train.jsonl, line 2: .*{message}"):
        records.rows(path, tldr.comparison)


def test_real_files_by_task(shared_data, monkeypatch):
    monkeypatch.setenv(tldr.FOLDER_VARIABLE, str(shared_data / "tldr"))
    sizes = {"tldr_sft": 200, "tldr_prompts": 200, "tldr_comparisons": 742}
    for name, size in sizes.items():
        task = seqio.get_mixture_or_task(name)
        rows = task.get_dataset(None, "validation", shuffle=False).ragged_batch(1000)
        (batch,) = rows
        assert batch["inputs"].shape[0] == size
    # "The longer one wins" scores about 0.58 on these human labels.
    longer = batch["completion_1"].row_lengths() > batch["completion_2"].row_lengths()
    preference = batch["preference"].numpy()[:, 0]
    assert 0.54 < np.mean(longer.numpy() == (preference == 1)) < 0.62
    assert 0.4 < preference.mean() < 0.6
