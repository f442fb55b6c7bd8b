"""Paths from the command line: relative, with "..", of no store that is known."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from po_jax import files
from po_jax.checkpoints import convert
from po_jax.checkpoints.convert import Target
from po_jax.checkpoints.load import load, open_checkpoint
from po_jax.checkpoints.manager import CheckpointManager


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """A folder whose sibling is `runs`."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_what_is_saved_at_a_path_with_dots_is_read_there(inside):
    state = {"params": {"kernel": np.arange(6.0, dtype=np.float32)}}
    manager = CheckpointManager("../runs/./sft/../sft")
    manager.save(2, state)
    manager.close()
    opened = open_checkpoint("../runs/sft")
    assert str(opened.path) == f"{inside}/runs/sft/checkpoint_2"
    os.chdir("/")  # As a judge may do, before anything is read.
    found = load(opened, jax.eval_shape(lambda: state["params"]))
    np.testing.assert_array_equal(found["kernel"], state["params"]["kernel"])


@pytest.mark.parametrize("format", convert.FORMATS)
def test_other_formats_at_a_path_with_dots(small, inside, format):
    convert.plan(small.directory, Target(format=format)).write("../out")
    opened = open_checkpoint("../here/../out")
    os.chdir("/")
    name = "encoder/encoder_norm/scale"
    np.testing.assert_array_equal(opened.parameters[name].value(), small.params[name])


def test_a_link_is_followed_before_its_dots(inside):
    (inside / "elsewhere" / "deep").mkdir(parents=True)
    (inside / "here" / "link").symlink_to(inside / "elsewhere" / "deep")
    assert files.absolute("link/../x") == inside / "elsewhere" / "x"
    assert files.absolute("link/x") == inside / "here" / "link" / "x"


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.absolute("~/runs") == tmp_path / "runs"


@pytest.mark.parametrize("path", ["https://host/t5", "s3://bucket/t5", "hf://t5", "file:///t5"])
def test_other_stores_are_refused_and_no_folder_is_made(inside, path):
    with pytest.raises(ValueError, match=f"{path}: expected a local path or gs://, got another"):
        open_checkpoint(path)
    with pytest.raises(ValueError, match="expected a local path or gs://"):
        CheckpointManager(path)
    assert not list(Path.cwd().iterdir())


def test_no_path():
    with pytest.raises(ValueError, match="expected a path, got ''"):
        open_checkpoint("")


def test_a_bucket_out_of_reach(monkeypatch):
    class OpError(Exception):
        """Not of Python's own classes, as TensorFlow's are not."""

    def fail(*_):
        raise OpError("Could not resolve host: www.googleapis.com\n\twhen reading metadata")

    monkeypatch.setattr("po_jax.checkpoints.load._latest", fail)
    message = "gs://bucket/t5: expected a bucket in reach, got: Could not resolve host: www.*"
    with pytest.raises(ValueError, match=f"^{message}$"):
        open_checkpoint("gs://bucket/t5")


def test_two_checkpoints_of_one_step(tmp_path):
    for name in ("checkpoint_7", "7", "checkpoint_3"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="one checkpoint of each step, got .*7 and .*7$"):
        open_checkpoint(tmp_path)
