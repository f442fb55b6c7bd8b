"""`make tldr` from small copies of what it would download, through the same code."""

import json
from pathlib import Path
import shutil

from etils import epath
import gin
import pytest

from launch import GIN_FOLDER, tldr
from tests.launch import hub_t5

pyarrow = pytest.importorskip("pyarrow", reason="the extra tldr is not installed")
EMPTY = 3  # rows that say nothing, in every table


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """What the hub has, but small."""
    import pyarrow.parquet

    where = tmp_path_factory.mktemp("hub")
    for table in tldr.TABLES:
        path = where / table.repository / table.file
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"prompt": f"TITLE: a post {i}\n\nPOST: long. TL;DR:"} for i in range(35)]
        for i, row in enumerate(rows):
            short = "" if i < EMPTY else f" short {i}"
            if table.place.startswith("posts"):
                row["completion"] = short
            else:
                row |= {"chosen": short, "rejected": " long and long"}
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    model = epath.Path(where / "google" / "flan-t5-small")
    hub_t5.write(model)
    shutil.copy(GIN_FOLDER.parent / "tasks" / "docstrings.model", model / "spiece.model")
    (model / "generation_config.json").write_text("{}")
    yield where
    gin.clear_config()


def test_copies_become_what_the_tasks_read(copies, tmp_path, monkeypatch):
    start = tldr.fetch(tmp_path, "flan-t5-small", copies)
    assert sorted(path.name for path in start.iterdir()) == sorted(tldr.MODEL_FILES)
    for split in ("train", "validation", "test"):
        lines = (tmp_path / "data" / "posts" / f"{split}.jsonl").read_text().splitlines()
        assert len(lines) == 35 - EMPTY
        assert json.loads(lines[0])["completion"] == " short 3"
    (first, *_) = (tmp_path / "data/comparisons/train.jsonl").read_text().splitlines()
    assert json.loads(first).keys() == {"prompt", "chosen", "rejected"}
    # What is there is not fetched again, and needs neither copies nor a network.
    assert tldr.fetch(tmp_path, "flan-t5-small", Path("nowhere")) == start


def test_what_is_downloaded_is_said_with_its_size_and_no_copy_is_an_error(tmp_path, capsys):
    assert "google/flan-t5-base: 990 MB" in tldr.bill("flan-t5-base")
    assert tldr.bill("flan-t5-small").endswith(f"in all {308 + 110 + 6 + 6 + 20 + 21} MB, once")
    assert tldr.main([str(tmp_path), f"--from={tmp_path}"]) == 1
    told = capsys.readouterr().err
    assert "expected the file google/flan-t5-small/config.json, got none" in told
    assert "Downloading" not in told


@pytest.mark.slow
def test_the_whole_of_it(copies, tmp_path, capfd):
    quick = {
        "MODEL_FILE": "gin/models/t5_1_1/tiny.gin",
        "LENGTHS": {"inputs": 16, "targets": 4},
        "BATCH_SIZE": 8,
        "SFT_STEPS": 2,
        "JUDGE_STEPS": 2,
        "STEPS": 2,
        "MAX_PROMPTS": 8,
    }
    bindings = [f"--gin.{name}={value}" for name, value in quick.items()]
    status = tldr.main([str(tmp_path / "tldr"), f"--from={copies}", *bindings])
    assert status == 0, capfd.readouterr().err
    page = (tmp_path / "tldr" / "study.html").read_text()
    assert "6 of 6 cells are done" in page and page.count("data:image/svg+xml") == 2
    report = json.loads((tmp_path / "tldr" / "report" / "report.json").read_text())
    assert report["policies"] == ["start", "IPO", "online_IPO", "IPO-MD"]
    assert report["prompts"] == 8
