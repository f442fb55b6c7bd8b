"""Places to write to: what is refused before the work, and what a failure leaves."""

import os

import pytest

from launch import outputs


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text("old")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "expected a path, got ''"),
        ("https://host/out.jsonl", "expected a local path or gs://"),
        (".", "got the folder '.'"),
        ("empty", "got the folder 'empty'"),
        ("empty/", "got the folder 'empty/'"),
        ("file", "expected nothing at .*/file, got an earlier result: give --overwrite"),
        ("file/out.jsonl", "expected a folder to write to at .*/file, got the file .*/file"),
        ("file/a/b/out.jsonl", "expected a folder to write to at .*/file/a/b, got the file .*file"),
    ],
)
def test_where_no_file_can_be_written(path, message):
    with pytest.raises(ValueError, match=message):
        outputs.new_file(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "expected a path, got ''"),
        ("report", "expected nothing at .*/report/report.json, got an earlier result"),
        ("file", "expected a folder to write to at .*/file, got the file"),
        ("file/report", "expected a folder to write to at .*/file/report, got the file"),
    ],
)
def test_where_no_folder_can_be_written(path, message):
    with pytest.raises(ValueError, match=message):
        outputs.new_folder(path, "report.json")


def test_a_read_only_folder(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder / "empty")
    for make in (outputs.new_file, lambda path: outputs.new_folder(path, "report.json")):
        with pytest.raises(ValueError, match="at .*/empty.*, but .*/empty is read-only"):
            make("empty/deeper/x")


def test_places_are_absolute(folder):
    assert outputs.new_file("a/out.jsonl") == str(folder / "a" / "out.jsonl")
    assert outputs.new_file("file", overwrite=True) == str(folder / "file")
    assert outputs.new_folder("empty", "report.json") == folder / "empty"
    assert outputs.new_folder("report", "report.json", overwrite=True) == folder / "report"
    assert not (folder / "a").exists()


@pytest.mark.parametrize("name", ["report", "new/report"])
def test_a_folder_is_written_whole(folder, name):
    place = outputs.new_folder(name, "report.json", overwrite=True)
    (place.parent / ".report.partial").mkdir(parents=True)
    (place.parent / ".report.partial" / "left.txt").write_text("of a killed command")
    with outputs.written_whole(place) as beside:
        (beside / "report.json").write_text("new")
        assert not place.exists() or (place / "report.json").read_text() == "old"
    written = {path.name: path.read_text() for path in place.iterdir()}
    assert written == {"report.json": "new"} | ({"notes.txt": "mine"} if name == "report" else {})
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []


def test_a_failure_leaves_all_as_it_was(folder):
    before = sorted(path.name for path in folder.rglob("*"))
    with (
        pytest.raises(OSError, match="No space"),
        outputs.written_whole(folder / "report") as beside,
    ):
        (beside / "report.json").write_text("half")
        raise OSError(28, "No space left on device")
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert (folder / "report" / "report.json").read_text() == "old"
