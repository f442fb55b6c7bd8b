"""A run in which the working directory changes, and whose folder was given with dots."""

import os

from po_jax.checkpoints.load import open_checkpoint
from po_jax.data import json_lines
from tests.training import small_run


def test_everything_of_a_run_stays_where_it_began(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    # As a judge or a metric may do in the middle of a run.
    small_run.offline_ipo("../runs/x", 1, started=lambda: os.chdir("/"))
    assert os.getcwd() == "/"
    assert {"checkpoint_1", "metrics.jsonl"} <= set(os.listdir(tmp_path / "runs" / "x"))
    assert os.listdir(tmp_path / "work") == []
    checkpoint = open_checkpoint(tmp_path / "runs" / "x")
    assert (checkpoint.step, checkpoint.about.kind) == (1, "a policy")


def test_records_made_while_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def records():
        os.chdir("/")
        yield {"prompt": "x"}

    assert json_lines.write("out/train.jsonl", records()) == 1
    assert [row for _, row in json_lines.read(tmp_path / "out" / "train.jsonl")] == [
        {"prompt": "x"}
    ]
    assert os.listdir(tmp_path / "out") == ["train.jsonl"]
