"""Runs that are killed, or asked to stop, at moments drawn at random, and are then resumed.

    python -m tests.benchmarks.interrupted [--kills 20] [--terms 5] [--seed 0]

A moment lies between two records of the run, before the first or after the last, all equally
likely: compiling would fill nearly all of the time otherwise. Each of four small runs (online with
a Python judge, offline, supervised, a reward model) is made once undisturbed. Then a run is
started anew, gets its signal, is started again, and is held against the undisturbed one:
metrics.jsonl without its times, texts.jsonl with the samples, and the parameters, to the last bit.
No temporary file may be left. A table tells; the exit status is the number of differences.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
import dataclasses
import itertools
import json
import multiprocessing
from multiprocessing.context import ForkProcess as Process
import os
from pathlib import Path
import random
import signal
import sys
import tempfile
import time

import jax
import numpy as np

from po_jax.checkpoints.load import open_checkpoint
from po_jax.data import layouts
from po_jax.data.corpus import BatchStream
from po_jax.judges import CallableJudge, Calls, RewardModel
from po_jax.judges.template import Template
from po_jax.models import SupervisedModel
from po_jax.training.held_out import JudgeEvaluation, PolicyEvaluation, SupervisedEvaluation
from po_jax.training.offline_feed import DataFeed
from tests.training import small_run
from tests.vocabularies import Numbers

FORK = multiprocessing.get_context("fork")
STEPS = 13
PERIODS = {"log_period": 3, "eval_period": 4, "save_period": 5}


def prefer_longer(prompt: str, first: str, second: str) -> float:
    """A judge that takes its time."""
    time.sleep(0.005)
    return 1.0 / (1.0 + np.exp(len(second) - len(first)))


def online(folder: Path) -> None:
    """IPO-MD with a judge in Python, who is asked in evaluations, too."""
    judge = CallableJudge(prefer_longer, Numbers(), calls=Calls(threads=2))
    small_run.ipo_md(folder, STEPS, judge, **PERIODS, evaluations={"held_out": _held_out(judge)})


def offline(folder: Path) -> None:
    """IPO on comparisons; evaluations ask a judge in Python."""
    judge = CallableJudge(prefer_longer, Numbers(), calls=Calls(threads=2))
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


def start(name: str, folder: Path) -> Process:
    """Starts a run in a process of its own, and returns when its directory is there.

    The process is forked from this one, which has imported everything and started no device.
    """
    process = FORK.Process(target=_run, args=(name, folder))
    process.start()
    while not folder.exists() and process.is_alive():
        time.sleep(0.001)
    return process


def _run(name: str, folder: Path) -> None:
    with folder.with_suffix(".err").open("a") as errors:
        os.dup2(errors.fileno(), 2)
    RUNS[name](folder)


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


def differences(found: Path, expected: Path) -> list[str]:
    """What a run that was resumed has otherwise than the undisturbed one."""
    different = []
    for file in ("metrics.jsonl", "texts.jsonl"):
        if records(found, file) != records(expected, file):
            different.append(file)
    last = f"checkpoint_{STEPS}"
    one, other = (open_checkpoint(folder / last) for folder in (found, expected))
    for kind in ("parameters", "slots"):
        leaves, wanted = getattr(one, kind), getattr(other, kind)
        if leaves.keys() != wanted.keys() or any(
            not np.array_equal(leaf.value(), wanted[name].value()) for name, leaf in leaves.items()
        ):
            different.append(kind)
    names = {path.relative_to(found).as_posix() for path in found.rglob("*")}
    left = [n for n in names if any(mark in n for mark in ("tmp", ".new", ".partial", "damaged"))]
    return different + sorted(left)


def compare(found: Path, expected: Path) -> list[str]:
    """The differences, found in a process of its own: reading checkpoints starts threads."""
    with ProcessPoolExecutor(1, FORK) as pool:
        return pool.submit(differences, found, expected).result()


def disturb(name: str, folder: Path, number: signal.Signals, recorded: int, seconds: float) -> str:
    """Starts a run, sends it a signal at a moment, and says what was there then.

    Returns nothing where the run was over by then.

    Args:
      name: of the run.
      folder: of the run.
      number: of the signal.
      recorded: lines of metrics.jsonl that are waited for.
      seconds: that are waited then.
    """
    began = time.monotonic()
    process = start(name, folder)
    while len(records_until_cut(folder)) < recorded and process.is_alive():
        time.sleep(0.001)
    time.sleep(seconds)
    passed = time.monotonic() - began
    if not process.is_alive():
        return ""
    os.kill(process.pid, number)
    began = time.monotonic()
    process.join()
    ended = time.monotonic() - began
    steps = [json.loads(line)["step"] for line in records_until_cut(folder)]
    saved = checkpoints(folder)
    return (
        f"{passed:.2f} s | {ended:.2f} s | {max(steps, default=0)} | {max(saved, default='none')}"
    )


def watch(process: Process, folder: Path) -> list[float]:
    """Seconds before the first record of a run, between records, and after the last."""
    moments = [time.monotonic()]
    while process.is_alive():
        while len(records_until_cut(folder)) >= len(moments):
            moments.append(time.monotonic())
        time.sleep(0.001)
    assert process.exitcode == 0
    moments.append(time.monotonic())
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


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
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    signals = [signal.SIGKILL] * arguments.kills + [signal.SIGTERM] * arguments.terms
    print("| run | signal | after | ended in | newest record | newest checkpoint | resumed |")
    print("|---|---|---|---|---|---|---|")
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        jax.config.update("jax_compilation_cache_dir", f"{scratch}/jax")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        pauses = {}  # by run and records that are there, until the next one
        for name in RUNS:
            for folder in (f"compiled_{name}", name):  # the second time as all others
                pauses[name] = watch(start(name, Path(scratch) / folder), Path(scratch) / folder)
        for index, number in enumerate(signals):
            name = list(RUNS)[index % len(RUNS)]
            told = ""
            while not told:  # a moment after the end is drawn again
                folder = Path(tempfile.mkdtemp(dir=scratch)) / name
                recorded = chance.randrange(len(pauses[name]))
                seconds = chance.uniform(0.0, pauses[name][recorded])
                told = disturb(name, folder, number, recorded, seconds)
            process = start(name, folder)
            process.join()
            found = [f"exit status {process.exitcode}"] * bool(process.exitcode)
            found = found or compare(folder, Path(scratch) / name)
            wrong += bool(found)
            outcome = ", ".join(found) or "the same"
            print(f"| {name} | {number.name} | {told} | {outcome} |", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
