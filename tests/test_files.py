"""Files that are there whole or not, on a disk and in a bucket."""

import errno
import os
import types

import pytest

from launch import outputs
from po_jax import files
from po_jax.checkpoints import directories
from po_jax.data import json_lines
from po_jax.reporting.writers import JsonLines
from tests import buckets


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    if request.param == "disk":
        yield files.absolute(tmp_path)
    else:
        with buckets.in_memory():
            yield files.absolute("gs://bucket/runs")


def test_a_file_is_written_whole_in_a_folder_that_was_not_there(folder):
    path = folder / "new" / "x.txt"
    with files.written_whole(path) as beside:
        beside.write_text("first")
        assert not path.exists()
    with files.written_whole(path) as beside:
        beside.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert [child.name for child in path.parent.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space")])
def test_what_fails_leaves_the_file_as_it_was(folder, error):
    path = folder / "x.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("old")
    with pytest.raises(type(error)), files.written_whole(path) as beside:
        beside.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [child.name for child in path.parent.iterdir()] == ["x.txt"]
    if isinstance(error, OSError):
        assert error.filename == os.fspath(path)


def test_records_go_to_a_bucket_and_come_back(folder):
    rows = [{"prompt": "a\u2028b", "preference": 0.25}, {"prompt": "c", "preference": 1.0}]
    path = outputs.new_file(folder / "out" / "rows.jsonl")
    assert json_lines.write(path, rows) == 2
    assert [row for _, row in json_lines.read(path)] == rows
    with pytest.raises(ValueError, match="got an earlier result: give --overwrite"):
        outputs.new_file(path)


def test_a_report_is_written_whole(folder):
    place = outputs.new_folder(folder / "report", "report.json")
    with outputs.written_whole(place) as beside:
        (beside / "report.json").write_text("{}")
        assert not place.exists()
    assert [path.name for path in place.iterdir()] == ["report.json"]
    with pytest.raises(ValueError, match="got an earlier result: give --overwrite"):
        outputs.new_folder(folder / "report", "report.json")


def test_a_run_keeps_its_records(folder):
    JsonLines(folder).scalars(2, "train", {"loss": 0.5})
    JsonLines(folder).scalars(9, "train", {"loss": 0.25})
    JsonLines(folder, 2).scalars(3, "train", {"loss": 0.125})
    found = [(row["step"], row["loss"]) for _, row in json_lines.read(folder / "metrics.jsonl")]
    assert found == [(2, 0.5), (3, 0.125)]


def test_an_error_of_this_machine_is_no_buckets():
    with pytest.raises(KeyError), files.reaching("runs"):
        raise KeyError("x")
    with pytest.raises(ValueError, match="gs://b: expected a bucket in reach, got: no host"):
        with files.reaching("gs://b"):
            raise RuntimeError("no host\nmore")


def test_what_cannot_be_removed_hides_no_error(folder, monkeypatch):
    def refuses(*args, **kwargs):
        raise OSError("busy")

    monkeypatch.setattr(type(folder), "rmtree", refuses)
    monkeypatch.setattr(files, "time", types.SimpleNamespace(sleep=lambda seconds: None))
    with pytest.raises(ValueError, match="first"), directories.new_directory(folder / "model"):
        raise ValueError("the first error")
