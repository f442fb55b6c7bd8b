"""The time of a step under T5X's loop beside our own loop's, for the same work.

    python -m tests.benchmarks.t5x_step ipo ipo_md ipo_md_rouge --width 256

The two loops run in one process and take turns, ROUND steps each, on the same batches, with the
same seeds. A loop's turn ends when its parameters are there, and holds whatever it does between
steps: data, drawing, judging, logging every ROUND steps. The ratios are T5X's loop / ours, turn by
turn, of the clock and of the seconds that processors worked for them: where others use the machine
too, the clock tells of them. The first turns, which compile, do not count.
"""

import argparse
from collections.abc import Callable
import dataclasses
import importlib.util
from pathlib import Path
import sys
import tempfile
import threading
import time
from typing import Any

import jax
import numpy as np

ROUND = 5  # steps in a turn, and between records of metrics
WARM_UP = 3  # turns
OURS, THEIRS = "our loop", "T5X's loop"


class Turns:
    """Lets two loops run in turn, and notes what a step took in each turn: clock, processors."""

    def __init__(self):
        self.seconds = {OURS: [], THEIRS: []}
        self._began = {}
        self._may_run = {OURS: threading.Semaphore(1), THEIRS: threading.Semaphore(0)}

    def next(self, loop: str, params: Any) -> None:
        """Ends the loop's turn and waits for its next one."""
        jax.block_until_ready(params)
        if loop in self._began:
            self.seconds[loop].append((_now() - self._began[loop]) / ROUND)
            self.leave(loop)
        self._may_run[loop].acquire()
        self._began[loop] = _now()

    def leave(self, loop: str) -> None:
        """Gives the turn to the other loop."""
        self._may_run[OURS if loop is THEIRS else THEIRS].release()


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


class InTurn:
    """A feed whose loop waits for its turn."""

    def __init__(self, feed: Any, turns: Turns, loop: str):
        self._feed = feed
        self._turns = turns
        self._loop = loop

    def batch(self, step, state, clock):
        if step % ROUND == 0:
            self._turns.next(self._loop, state.params)
        return self._feed.batch(step, state, clock)

    def save(self):
        self._feed.save()


def measure(name: str, width: int, rounds: int, folder: Path) -> dict[str, np.ndarray]:
    """Seconds of a step by loop: [turn, clock or processors]."""
    from po_jax.t5x.start import partitioner_of
    from tests.t5x import harness
    from tests.t5x.cases import make_case

    sizes = {"emb_dim": width, "head_dim": width // harness.CONFIG.num_heads, "mlp_dim": 2 * width}
    mesh, turns = harness.Mesh(), Turns()
    partitioner = partitioner_of(mesh)
    case = make_case(name, folder, partitioner, dataclasses.replace(harness.CONFIG, **sizes))
    steps = (WARM_UP + rounds) * ROUND + 1

    def run(loop: str, train: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        def feed(run, data):
            return InTurn(case.feed(run, data), turns, loop)

        try:
            timed = dataclasses.replace(case, feed=feed)
            train(timed, folder / loop, *arguments, steps=steps, **options)
        finally:
            turns.leave(loop)

    options = {"stats_period": ROUND}
    theirs = threading.Thread(
        target=run, args=(THEIRS, harness.Case.by_t5x, mesh), kwargs=options, daemon=True
    )
    theirs.start()
    # Ours has the main thread, the only one that hears signals.
    run(OURS, harness.Case.by_us, partitioner, log_period=ROUND)
    theirs.join()
    return {loop: np.array(times[WARM_UP:]) for loop, times in turns.seconds.items()}


def processor() -> str:
    """What the machine calls its processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    """Prints a line for each algorithm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="of tests/t5x/cases.py: those that have a feed")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    if importlib.util.find_spec("t5x") is None:
        sys.exit("skipped: needs T5X, which no package index holds (see docs/t5x.md)")
    jax.config.update("jax_platforms", "cpu")
    print(f"{jax.__version__=} on {processor()}, width {arguments.width}")
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, arguments.width, arguments.rounds, Path(folder))
        for column, clock in enumerate(("clock", "processors")):
            ours, theirs = (1000 * found[loop][:, column] for loop in (OURS, THEIRS))
            low, middle, high = np.percentile(theirs / ours, [25, 50, 75])
            print(
                f"{name}, {clock}: {OURS} {np.median(ours):.2f} ms, {THEIRS} "
                f"{np.median(theirs):.2f} ms; ratio {middle:.3f} (quartiles {low:.3f} to "
                f"{high:.3f}, {len(ours)} pairs of turns)",
                flush=True,
            )


if __name__ == "__main__":
    main()
