"""Disks that are full and folders that cannot be written to: one line, and nothing half-written."""

import logging
import os
import subprocess
import sys

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import convert as program
from po_jax.checkpoints import describe, hugging_face
from po_jax.checkpoints.directories import new_directory
from po_jax.checkpoints.leaves import from_array
from po_jax.checkpoints.manager import CheckpointError, CheckpointManager
from po_jax.data import json_lines
from tests.checkpoints.conftest import CONFIG

MEGABYTE = 2**20


def test_a_save_on_a_full_disk(mounted, caplog, capsys):
    disk = mounted()
    manager = CheckpointManager(disk / "run")
    manager.save(1, {"kernel": jnp.zeros(5)})
    manager.wait()
    noise = jax.random.normal(jax.random.key(0), (MEGABYTE // 2,))
    with pytest.raises(CheckpointError) as raised, caplog.at_level(logging.WARNING):
        manager.save(2, {"kernel": noise})
        manager.wait()
    message = str(raised.value)
    assert message.startswith(f"could not save to {disk}/run (")
    assert "No space left on device" in message and "\n" not in message and len(message) < 300
    assert message.endswith("the last whole checkpoint is step 1")
    assert not caplog.records and capsys.readouterr().err == ""
    assert os.listdir(disk / "run") == ["checkpoint_1"]


@pytest.mark.parametrize("format", ["t5x", "hugging_face"])
def test_a_conversion_on_a_full_disk(mounted, tmp_path, capsys, format):
    disk = mounted()
    config = CONFIG.__class__(**{**vars(CONFIG), "vocab_size": 20_000})
    source = epath.Path(tmp_path / "large")
    source.mkdir()
    rng = np.random.default_rng(0)
    leaves = {
        name: from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in describe.parameter_shapes(config).items()
    }
    hugging_face.write(source, leaves, config, family="t5")
    status = program.main([f"--from={source}", f"--to={disk}/new/folder/out", f"--format={format}"])
    told = capsys.readouterr().err
    assert status == 1 and told.count("\n") == 1 and "No space left on device" in told
    assert str(disk) in told
    assert not os.listdir(disk)


def test_records_on_a_full_disk(mounted):
    disk = mounted()
    json_lines.write(disk / "kept.jsonl", [{"prompt": "before"}])
    for name in ("kept.jsonl", "new.jsonl"):
        with pytest.raises(OSError, match=f"No space left on device: .*{name}"):
            json_lines.write(disk / name, [{"prompt": "x" * 2 * MEGABYTE}])
    assert os.listdir(disk) == ["kept.jsonl"]
    assert [row for _, row in json_lines.read(disk / "kept.jsonl")] == [{"prompt": "before"}]


def test_a_disk_that_can_only_be_read(mounted):
    disk = mounted("ro,size=1m")
    for folder in (disk, disk / "run"):
        with pytest.raises(ValueError, match="expected a folder that can be written to, got: Read"):
            CheckpointManager(folder)


def test_a_folder_that_is_a_file_or_below_one(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: expected a folder that can be written .* a file"):
        CheckpointManager(tmp_path / "file")
    with pytest.raises(ValueError, match="run: expected a folder that can be .* Not a directory"):
        CheckpointManager(tmp_path / "file" / "run")


def test_what_a_killed_process_left_is_removed(tmp_path):
    """As the next process of its id, or any later one, finds it."""
    script = (
        "import os, signal\n"
        "from po_jax.checkpoints.directories import new_directory\n"
        f"with new_directory({str(tmp_path / 'out')!r}) as folder:\n"
        "    (folder / 'half').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script])
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.tmp-")
    own = left.with_name(left.name.rpartition("-")[0] + f"-{os.getpid()}")
    other = left.with_name(left.name.rpartition("-")[0] + f"-{os.getppid()}")  # It lives.
    own.mkdir()
    other.mkdir()
    with new_directory(tmp_path / "out") as folder:
        (folder / "whole").touch()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "out", other])
    assert os.listdir(tmp_path / "out") == ["whole"]


def test_folders_above_a_failed_directory_go_too(tmp_path):
    with pytest.raises(RuntimeError), new_directory(tmp_path / "a" / "b" / "out"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())
