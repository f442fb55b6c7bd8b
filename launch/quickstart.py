"""Trains and compares the methods on docstrings: nothing is downloaded, minutes pass.

    python -m launch.quickstart [FOLDER]

1. A small policy, shipped, that writes the first line of a docstring from the signature and the
   rest (trained by gin/experiments/docstrings/sft.gin) answers each prompt four times; ROUGE
   against the author's own line says which of two answers is better.
2. A preference model, which reads two lines together and is shipped, too (trained by
   gin/experiments/docstrings/preference_start.gin), learns from these comparisons.
3. Offline IPO learns from the comparisons; online IPO, IPO-MD and Nash-MD-PG from fresh answers,
   judged by the preference model.
4. All answer prompts of modules that nobody has seen, and ROUGE judges.

Everything goes to FOLDER (runs/quickstart): the runs, and report/report.html.
"""

import argparse
from collections.abc import Callable, Sequence
import os
from pathlib import Path
import sys
import time

from launch import evaluate, label, train
from po_jax.data import json_lines
from po_jax.reporting.progress import duration

START = Path(__file__).with_name("docstrings_sft")
JUDGE_START = Path(__file__).with_name("docstrings_judge")
METHODS = ("ipo", "online_ipo", "ipo_md", "nash_md_pg")
TRAIN_PROMPTS = 800
VALIDATION_PROMPTS = 100
TRAIN_STEPS = 65  # of each method: fewer than their files say, to be done in minutes


def command(experiment: str, **macros: object) -> list[str]:
    """The arguments of an experiment of gin/experiments/docstrings."""
    bindings = [f"--gin.{name}={value!r}" for name, value in macros.items()]
    return [f"--gin_file=gin/experiments/docstrings/{experiment}.gin", *bindings]


def stages(folder: Path) -> list[tuple[str, Callable[[Sequence[str]], int], list[str]]]:
    """Every stage: what it is, the program, and its arguments."""
    data, judge, start = folder / "data", str(folder / "judge"), str(START)
    found = [
        (
            f"comparisons for {split}",
            label.main,
            command(
                "label",
                CHECKPOINT_PATH=start,
                SPLIT=split,
                MAX_PROMPTS=count,
                OUTPUT=str(data / f"comparisons.{split}.jsonl"),
            )
            + ["--overwrite"],
        )
        for split, count in (("train", TRAIN_PROMPTS), ("validation", VALIDATION_PROMPTS))
    ]
    found.append(
        (
            "preference model",
            train.main,
            command("preference_model", MODEL_DIR=judge, INITIAL_CHECKPOINT_PATH=str(JUDGE_START)),
        )
    )
    for method in METHODS:
        macros: dict[str, object] = {
            "MODEL_DIR": str(folder / method),
            "INITIAL_CHECKPOINT_PATH": start,
            "TRAIN_STEPS": TRAIN_STEPS,
        }
        if method != "ipo":
            macros["JUDGE_CHECKPOINT_PATH"] = judge
        found.append((method, train.main, command(method, **macros)))
    policies = {"sft": start, **{method: str(folder / method) for method in METHODS}}
    report = command("evaluate", OUTPUT_DIR=str(folder / "report"), POLICIES=policies)
    return [*found, ("report", evaluate.main, [*report, "--overwrite"])]


def step_times(metrics: Path) -> str:
    """How long a step's stages took, and for what share of the time no device worked."""
    lines = [record for _, record in json_lines.read(metrics)]
    steps = [line for line in lines if line["split"] == "train"]
    mean = {
        name.removeprefix("seconds_"): sum(line.get(name, 0.0) for line in steps) / len(steps)
        for name in steps[-1]
        if name.startswith("seconds_") and name != "seconds_evaluating"
    }
    idle = mean.pop("idle")
    parts = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in mean.items())
    return f"{parts}; no device worked for {idle / (idle + sum(mean.values())):.1%} of the time"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stages; returns the exit status of the first that fails, or 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", default="runs/quickstart", type=Path)
    folder = parser.parse_args(argv).folder
    os.environ["PO_JAX_DOCSTRINGS_DIR"] = str(folder / "data")
    began = time.monotonic()
    for name, program, arguments in stages(folder):
        print(f"[{duration(time.monotonic() - began)}] {name}", file=sys.stderr)
        if status := program(arguments):
            return status
    print(f"a step of ipo_md: {step_times(folder / 'ipo_md' / 'metrics.jsonl')}")
    print(f"all in {duration(time.monotonic() - began)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
