"""A whole step of training in this checkout beside one in another, in turn, on one process.

    python -m tests.benchmarks.two_checkouts OTHER_CHECKOUT

prints, for offline IPO and IPO-MD of a small T5, each checkout's median of a step's time (feed,
sampling, judge, update, records) and the median of their ratios over the rounds: by the clock, and
of the processors, which neighbours disturb less. What is timed is the loop's own step. `git
worktree add OTHER_CHECKOUT COMMIT` makes another checkout.
"""

import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time

HERE = Path(__file__).resolve().parents[2]
ROUNDS, STEPS = 25, 12
SIZES = dict(emb_dim=64, num_heads=4, head_dim=16, mlp_dim=128, dropout_rate=0.0)


def steps(kind: str) -> None:
    """Takes steps whenever a line comes in, and says how many seconds one took, in two ways."""
    import dataclasses
    from functools import partial

    from po_jax.judges import LearnedJudge
    from po_jax.models import PolicyModel
    from po_jax.partitioning import make_partitioner
    from po_jax.t5.language_model import T5LM
    from po_jax.training import loop
    from po_jax.training.offline_feed import OfflineFeed
    from po_jax.training.online_feed import OnlineFeed
    from tests.training import small_run

    model = T5LM(dataclasses.replace(small_run.MODEL.config, **SIZES))
    feed, data = OfflineFeed, small_run.comparisons()
    if kind == "ipo_md":
        judge = LearnedJudge(small_run.judge().model, small_run.judge().params, make_partitioner())
        data = small_run.prompts()
        feed = partial(OnlineFeed, annotator=judge, strategy=small_run.STRATEGY, betas=(0.25, 0.25))
    with tempfile.TemporaryDirectory() as folder:
        trainer = loop.Trainer(
            model=PolicyModel(language_model=model, objective=small_run.IPO),
            optimizer=small_run.OPTIMIZER,
            feed=feed,
            data=data,
            partitioner=make_partitioner(),
            model_dir=folder,
            total_steps=10**6,
        )
        training = loop._Training(trainer)
        for _ in sys.stdin:
            began = time.perf_counter(), time.process_time()
            for _ in range(STEPS):
                loop.check()
                training._take_step()
            training._reporter.settle()
            ended = time.perf_counter(), time.process_time()
            taken = [(end - begin) / STEPS for begin, end in zip(began, ended, strict=True)]
            print("took", *taken, flush=True)


class Contestant:
    """A process that takes steps in one checkout."""

    def __init__(self, checkout: Path, kind: str):
        environment = {**os.environ, "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "steps", kind],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def seconds(self) -> list[float]:
        """Of a step, now: by the clock, and of the processors."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("took "):
                return [float(word) for word in line.split()[1:]]
        raise RuntimeError("a contestant has ended")

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def main(other: Path) -> None:
    print("| step | time | here, ms | there, ms | here / there |\n|---|---|---|---|---|")
    for kind in ("ipo", "ipo_md"):
        here, there = Contestant(HERE, kind), Contestant(other, kind)
        here.seconds(), there.seconds()  # compile
        rounds = []
        for turn in range(ROUNDS):
            pair = {}
            for one in (here, there) if turn % 2 else (there, here):
                pair[one] = one.seconds()
            rounds.append((pair[here], pair[there]))
        for which, name in enumerate(("clock", "processors")):
            pairs = [(mine[which], yours[which]) for mine, yours in rounds]
            ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(mine / yours for mine, yours in pairs)
            print(f"| {kind} | {name} | {1e3 * ours:.2f} | {1e3 * theirs:.2f} | {ratio:.3f} |")
        here.end(), there.end()


if __name__ == "__main__":
    if sys.argv[1] == "steps":
        steps(sys.argv[2])
    else:
        main(Path(sys.argv[1]).resolve())
