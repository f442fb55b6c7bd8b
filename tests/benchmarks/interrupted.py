"""Runs that are killed, or asked to stop, at moments drawn at random, and are then resumed.

    python -m tests.benchmarks.interrupted [--kills 20] [--terms 5] [--seed 0]

Each of four small runs (online with a Python judge, offline, supervised, a reward model) is made
once undisturbed. Then a run is started anew, gets its signal, is started again, and is held against
the undisturbed one: metrics.jsonl without its times, texts.jsonl with the samples, and the
parameters, to the last bit. No temporary file may be left. A table tells; the exit status is the
number of differences.
"""

import argparse
from collections.abc import Iterator
import dataclasses
import json
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from po_jax.checkpoints.load import open_checkpoint
from po_jax.data import layouts
from po_jax.data.corpus import BatchStream
from po_jax.judges import CallableJudge, RewardModel
from po_jax.judges.template import Template
from po_jax.models import SupervisedModel
from po_jax.training.held_out import JudgeEvaluation, PolicyEvaluation, SupervisedEvaluation
from po_jax.training.offline_feed import DataFeed
from tests.training import small_run
from tests.vocabularies import Numbers

ROOT = Path(__file__).resolve().parents[2]
STEPS = 13
PERIODS = {"log_period": 3, "eval_period": 4, "save_period": 5}


def prefer_longer(prompt: str, first: str, second: str) -> float:
    """A judge that takes its time."""
    time.sleep(0.005)
    return 1.0 / (1.0 + np.exp(len(second) - len(first)))


def online(folder: Path) -> None:
    """IPO-MD with a judge in Python, who is asked in evaluations, too."""
    judge = CallableJudge(prefer_longer, Numbers(), threads=2)
    small_run.ipo_md(folder, STEPS, judge, **PERIODS, evaluations={"held_out": _held_out(judge)})


def offline(folder: Path) -> None:
    """IPO on comparisons; evaluations ask a judge in Python."""
    judge = CallableJudge(prefer_longer, Numbers(), threads=2)
    small_run.offline_ipo(folder, STEPS, **PERIODS, evaluations={"held_out": _held_out(judge)})


def supervised(folder: Path) -> None:
    """Fine-tuning with dropout."""
    corpus = small_run.corpus()
    tokens = {"inputs": corpus.tokens["inputs"], "targets": corpus.tokens["completion_1"]}
    corpus = dataclasses.replace(corpus, tokens=tokens)
    data = BatchStream(corpus, layouts.Supervised(small_run.LENGTHS), 8)
    model = SupervisedModel(language_model=small_run.MODEL)

    def held_out(run):
        return SupervisedEvaluation(run, model=model, examples=data)

    evaluations = {"held_out": held_out}
    small_run.train(folder, DataFeed, data, STEPS, model=model, **PERIODS, evaluations=evaluations)


def reward_model(folder: Path) -> None:
    """A reward model on comparisons."""
    data = small_run.comparisons()
    template = Template(pieces=((20,), (21,)), verdicts=(18, 19))
    model = RewardModel(language_model=small_run.MODEL, template=template)

    def held_out(run):
        return JudgeEvaluation(run, model=model, comparisons=data)

    evaluations = {"held_out": held_out}
    small_run.train(folder, DataFeed, data, STEPS, model=model, **PERIODS, evaluations=evaluations)


RUNS = {run.__name__: run for run in (online, offline, supervised, reward_model)}


def _held_out(judge):
    def make(run):
        return PolicyEvaluation(
            run,
            prompts=small_run.prompts(),
            strategy=small_run.STRATEGY,
            vocabulary=Numbers(),
            judge=judge,
        )

    return make


def start(name: str, folder: Path) -> subprocess.Popen:
    """Starts a run in a process of its own, and returns when its directory is there."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, "--run", name, str(folder)],
        cwd=ROOT,
        env={**os.environ, **cache},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not folder.exists() and process.poll() is None:
        time.sleep(0.001)
    return process


def records(folder: Path, file: str) -> list[str]:
    """The lines of a file of records, without their times; none where it is not there."""
    path = folder / file
    lines = path.read_text().splitlines() if path.exists() else []
    kept = (
        {key: value for key, value in json.loads(line).items() if not key.startswith("seconds_")}
        for line in lines
    )
    return [json.dumps(record) for record in kept]


def checkpoints(folder: Path) -> list[int]:
    """The steps of the checkpoints that are whole."""
    return sorted(int(path.name.split("_")[1]) for path in folder.glob("checkpoint_*[0-9]"))


def differences(found: Path, expected: Path) -> Iterator[str]:
    """What a run that was resumed has otherwise than the undisturbed one."""
    for file in ("metrics.jsonl", "texts.jsonl"):
        if records(found, file) != records(expected, file):
            yield file
    last = f"checkpoint_{STEPS}"
    one, other = (open_checkpoint(folder / last) for folder in (found, expected))
    for kind in ("parameters", "slots"):
        leaves, wanted = getattr(one, kind), getattr(other, kind)
        if leaves.keys() != wanted.keys() or any(
            not np.array_equal(leaf.value(), wanted[name].value()) for name, leaf in leaves.items()
        ):
            yield kind
    names = {path.relative_to(found).as_posix() for path in found.rglob("*")}
    left = [n for n in names if any(mark in n for mark in ("tmp", ".new", ".partial", "damaged"))]
    yield from sorted(left)


def disturb(name: str, folder: Path, number: signal.Signals, seconds: float) -> str:
    """Starts a run, sends it a signal after so many seconds, and says what was there then."""
    process = start(name, folder)
    time.sleep(seconds)
    over = process.poll() is not None
    process.send_signal(number)
    began = time.monotonic()
    process.communicate()
    ended = time.monotonic() - began
    steps = [json.loads(line)["step"] for line in records_until_cut(folder)]
    saved = checkpoints(folder)
    return (
        f"{'after its end' if over else f'{seconds:.2f} s'} | {ended:.2f} s | "
        f"{max(steps, default=0)} | {max(saved, default='none')}"
    )


def records_until_cut(folder: Path) -> list[str]:
    """The whole lines of metrics.jsonl, the last of which a kill may have cut."""
    path = folder / "metrics.jsonl"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def main() -> int:
    """Disturbs runs, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--terms", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", nargs=2, metavar=("NAME", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.run:
        name, folder = arguments.run
        RUNS[name](Path(folder))
        return 0
    chance = random.Random(arguments.seed)
    signals = [signal.SIGKILL] * arguments.kills + [signal.SIGTERM] * arguments.terms
    print("| run | signal | after | ended in | newest record | newest checkpoint | resumed |")
    print("|---|---|---|---|---|---|---|")
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        lasted = {}
        for name in RUNS:
            for folder in (f"compiled_{name}", name):  # the second time as all others
                process = start(name, Path(scratch) / folder)
                began = time.monotonic()
                process.communicate()
                lasted[name] = time.monotonic() - began
                assert process.returncode == 0
        for index, number in enumerate(signals):
            name = list(RUNS)[index % len(RUNS)]
            folder = Path(scratch) / str(index)
            told = disturb(name, folder, number, chance.uniform(0.0, lasted[name]))
            process = start(name, folder)
            _, errors = process.communicate()
            found = [f"exit {process.returncode}: {errors[-300:]}"] if process.returncode else []
            found = found or list(differences(folder, Path(scratch) / name))
            wrong += bool(found)
            outcome = ", ".join(found) or "the same"
            print(f"| {name} | {number.name} | {told} | {outcome} |", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
