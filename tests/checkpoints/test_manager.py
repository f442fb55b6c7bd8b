"""Checkpoints of a run: what is kept, what comes back, and what happens when the disk fails."""

import errno
import logging
import os
import resource
import signal
import types

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import pytest

from po_jax import files
from po_jax.checkpoints.manager import UNFINISHED, CheckpointError, CheckpointManager


def state(step, width=7):
    return {
        "step": jnp.int32(step),
        "params": {"kernel": jnp.arange(6.0 * width).reshape(6, width) + step},
        "slots": [jnp.full((5,), step, jnp.bfloat16)],
    }


def like(width=7):
    return jax.eval_shape(lambda: state(0, width))


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_newest_and_the_best_are_kept(tmp_path):
    manager = CheckpointManager(tmp_path / "run", keep=2, best="win_rate")
    for step, rate in enumerate([0.1, 0.9, 0.3, 0.2, 0.4], start=1):
        manager.save(step, state(step), {"win_rate": rate})
    manager.close()

    manager = CheckpointManager(tmp_path / "run", keep=2, best="win_rate")  # as a resumed run does
    assert manager.steps == [2, 4, 5]
    assert manager.best_step == 2
    step, restored = manager.restore(like())
    assert step == 5
    assert_equal(restored, state(5))
    manager.close()


def test_the_best_may_be_the_smallest(tmp_path):
    manager = CheckpointManager(tmp_path, keep=1, best="loss", largest=False)
    for step, loss in enumerate([3.0, 1.0, 2.0], start=1):
        manager.save(step, state(step), {"loss": loss})
    manager.wait()
    assert (manager.steps, manager.best_step) == ([2, 3], 2)
    manager.close()


def test_an_empty_directory_restores_nothing(tmp_path):
    assert CheckpointManager(tmp_path / "new").restore(like()) is None


def test_shards_go_back_where_they_belong(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(1, state(1))
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    wanted = like()
    wanted["params"]["kernel"] = jax.ShapeDtypeStruct((6, 7), jnp.float32, sharding=sharding)
    manager.wait()
    _, restored = manager.restore(wanted)
    assert restored["params"]["kernel"].sharding == sharding
    assert_equal(restored, state(1))
    manager.close()


@pytest.mark.parametrize("damage", ["truncated", "absent"])
def test_a_damaged_checkpoint_gives_way_to_the_last_whole_one(tmp_path, damage, caplog):
    manager = CheckpointManager(tmp_path)
    for step in (1, 2, 3):
        manager.save(step, state(step))
    manager.close()
    files = [file for file in (tmp_path / "checkpoint_3").rglob("d/*") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    for file in files if damage == "absent" else [largest]:
        if damage == "truncated":
            os.truncate(file, file.stat().st_size // 2)
        else:
            file.unlink()

    manager = CheckpointManager(tmp_path)
    with caplog.at_level(logging.WARNING):
        step, restored = manager.restore(like())
    assert step == 2
    assert_equal(restored, state(2))
    assert "checkpoint_3 is damaged" in caplog.text
    assert (tmp_path / "damaged_checkpoint_3").is_dir()
    manager.save(3, state(3))  # the step is free again
    manager.close()
    assert CheckpointManager(tmp_path).steps == [1, 2, 3]


def test_no_readable_checkpoint_is_an_error_and_nothing_is_moved(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(1, state(1))
    manager.close()
    (tmp_path / "checkpoint_1" / "state" / "_METADATA").write_text("{")
    with pytest.raises(CheckpointError, match="no checkpoint in .* can be read: {1:"):
        CheckpointManager(tmp_path).restore(like())
    assert CheckpointManager(tmp_path).steps == [1]


def test_a_checkpoint_of_another_size_is_an_error_and_stays(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(4, state(4))
    manager.wait()
    with pytest.raises(ValueError, match=r"checkpoint_4: expected params/kernel of shape \(6, 8\)"):
        manager.restore(like(width=8))
    with pytest.raises(ValueError, match="expected extra of shape"):
        manager.restore({**like(), "extra": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert manager.steps == [4]
    manager.close()


def test_a_full_disk_is_reported_and_the_last_checkpoint_is_whole(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(1, state(1))
    manager.wait()
    # A limit on the size of files stands in for a full disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(300, 70)), jnp.float32)
    try:
        with pytest.raises(CheckpointError, match="MiB free.*the last whole checkpoint is step 1"):
            manager.save(2, {**state(2), "params": {"kernel": noise}})
            manager.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    step, restored = CheckpointManager(tmp_path).restore(like())
    assert step == 1
    assert_equal(restored, state(1))


@pytest.mark.parametrize("failures", [1, 9])
def test_a_writer_that_is_still_at_work_does_not_hide_why_the_save_failed(
    tmp_path, monkeypatch, failures
):
    manager = CheckpointManager(tmp_path)
    half = files.absolute(tmp_path) / f"checkpoint_2{UNFINISHED}"
    remove, tried = type(half).rmtree, []

    def fails(*args, **kwargs):
        (half / "state").mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    def interrupted(folder, **kwargs):  # as where files come while others go
        if folder == half:
            tried.append(folder)
            if len(tried) <= failures:
                raise OSError(errno.ENOTEMPTY, "Directory not empty")
        remove(folder, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(manager._orbax, "save", fails)
        # Of that module alone: Orbax's own threads sleep, too.
        patch.setattr(files, "time", types.SimpleNamespace(sleep=lambda seconds: None))
        patch.setattr(type(half), "rmtree", interrupted)
        with pytest.raises(CheckpointError, match="No space left.*last whole checkpoint is none"):
            manager.save(2, state(2))
    assert half.exists() == (failures == 9)
    assert CheckpointManager(tmp_path).steps == []  # a half counts for nothing
