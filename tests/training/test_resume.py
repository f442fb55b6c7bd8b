"""A run that is killed and resumed ends bit for bit where the run that was left alone ends."""

import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from po_jax.checkpoints.load import open_checkpoint

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12
SEED = 24  # of the moments of the kills
PROGRAM = [sys.executable, "-m", "tests.training.small_run"]


def start(folder):
    # Four processes, one compilation.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [*PROGRAM, str(folder), str(STEPS)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **cache})


def steps_done(folder):
    """Steps that both runs together have recorded so far."""
    records = (folder / run / "metrics.jsonl" for run in ("offline_ipo", "ipo_md"))
    return sum(len(file.read_text().splitlines()) for file in records if file.exists())


def kill_after(folder, steps):
    """Runs until so many more steps are recorded, then kills."""
    until = steps_done(folder) + steps
    process = start(folder)
    while process.poll() is None and steps_done(folder) < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.returncode


@pytest.mark.slow
def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path):
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    assert start(alone).wait() == 0
    moments = random.Random(SEED)
    first, second = moments.randint(1, STEPS - 2), moments.randint(STEPS // 2, STEPS)
    print(f"killed after {first} and {second} more steps")
    assert kill_after(broken, first) == -signal.SIGKILL  # in the offline run
    assert kill_after(broken, second) == -signal.SIGKILL  # in either
    assert start(broken).wait() == 0
    for run in ("offline_ipo", "ipo_md"):
        expected = open_checkpoint(alone / run / f"checkpoint_{STEPS}")
        found = open_checkpoint(broken / run / f"checkpoint_{STEPS}")
        assert expected.parameters.keys() == found.parameters.keys()
        for leaves in ("parameters", "slots"):
            for name, leaf in getattr(expected, leaves).items():
                other = getattr(found, leaves)[name]
                np.testing.assert_array_equal(leaf.value(), other.value(), err_msg=name)
