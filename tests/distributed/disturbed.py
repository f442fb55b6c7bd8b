"""Runs that something goes wrong with.

    MODEL_AXIS=1 python -m tests.distributed.disturbed FOLDER STEPS NAME

Which process it goes wrong on is TROUBLE; on none if that is not set.
"""

from collections.abc import Mapping
import errno
import os
from pathlib import Path
import resource
import sys
import time

import jax.numpy as jnp
import optax

from po_jax import processes
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.data import layouts
from po_jax.data.corpus import BatchStream
from po_jax.judges import CallableJudge, CallFailed, Calls
from po_jax.reporting.writers import JsonLines
from po_jax.training import held_out
from po_jax.training.offline_feed import OfflineFeed
from tests.distributed import runs
from tests.training import small_run
from tests.vocabularies import Numbers


def _in_trouble() -> bool:
    return processes.index() == int(os.environ.get("TROUBLE", "-1"))


def slow(prompt: str, first: str, second: str) -> float:
    """A judge that takes its time."""
    time.sleep(0.05)
    return runs.prefer_longer(prompt, first, second)


def failing(prompt: str, first: str, second: str) -> float:
    """A judge that has had enough after the third step, on one process."""
    failing.asked += 1
    if _in_trouble() and failing.asked > 46:
        raise CallFailed("HTTP 401", "the key has expired", again=False)
    return runs.prefer_longer(prompt, first, second)


failing.asked = 0


class FullDisk(JsonLines):
    """Writes records as long as there is room, which in trouble ends at step 3."""

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        if step == 3 and _in_trouble():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")
        super().scalars(step, split, values)


def _online(folder: Path, steps: int, function, **options) -> None:
    judge = CallableJudge(function, Numbers(), calls=Calls(threads=2))
    runs.online(folder, steps, judge, small_run.IPO, (0.25, 0.25), **options)


def slow_judge(folder: Path, steps: int) -> None:
    _online(folder, steps, slow)


def failing_judge(folder: Path, steps: int) -> None:
    _online(folder, steps, failing)


def full_disk(folder: Path, steps: int) -> None:
    _online(folder, steps, runs.prefer_longer, writers=(FullDisk,))


def hanging(folder: Path, steps: int) -> None:
    """An evaluation that never ends, on one process."""
    ask = held_out.ask

    def ask_for_ever(*arguments):
        if _in_trouble():
            time.sleep(3600.0)
        return ask(*arguments)

    held_out.ask = ask_for_ever
    _online(folder, steps, runs.prefer_longer)


def not_finite(folder: Path, steps: int) -> None:
    """An update, the fifth, after which no loss is a number."""
    rate = optax.sgd(lambda count: jnp.where(count == 4, jnp.float32(1e38), 0.05))
    _online(folder, steps, runs.prefer_longer, optimizer=rate)


class SmallDisk(CheckpointManager):
    """From step 4 on no file can have more than 9000 bytes, in trouble."""

    def save(self, step, *arguments):
        if step == 4 and _in_trouble():
            resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY))
        super().save(step, *arguments)


def failing_save(folder: Path, steps: int) -> None:
    _online(folder, steps, runs.prefer_longer, checkpoints=SmallDisk)


class NoRename(CheckpointManager):
    """From step 4 on no folder can be given another name, in trouble."""

    def save(self, step, *arguments):
        if step == 4 and _in_trouble():

            def refuse(*_, **__):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            os.rename = os.replace = Path.rename = refuse
        super().save(step, *arguments)


def failing_rename(folder: Path, steps: int) -> None:
    _online(folder, steps, runs.prefer_longer, checkpoints=NoRename)


def own_folder(folder: Path, steps: int) -> None:
    """Each process has a disk of its own where all should see one."""
    runs.sft(folder / str(processes.index()), steps)


def other_data(folder: Path, steps: int) -> None:
    """The data lack their last example on one process."""
    corpus = small_run.corpus(20 if _in_trouble() else 21)
    data = BatchStream(corpus, layouts.Comparisons(small_run.LENGTHS), 8)
    small_run.train(folder, OfflineFeed, data, steps, partitioner=runs.partitioner())


RUNS = {
    run.__name__: run
    for run in (
        slow_judge,
        failing_judge,
        full_disk,
        hanging,
        not_finite,
        failing_save,
        failing_rename,
    )
    + (own_folder, other_data)
}

if __name__ == "__main__":
    sys.exit(runs.main(RUNS))
