"""Runs a study: many trainings and evaluations, and one page of what they show.

    python -m launch.study --gin_file=gin/studies/gpo.gin --gin.STUDY_DIR=runs/gpo

A study is stages of ordinary commands, one for each combination of its axes. The same command,
given again, goes on where it ended: what is done stays, what failed is tried again. STUDY_DIR holds
study.html, study.json and a PNG of each figure; cells/ says what became of each command, with its
log. --list prints the commands, for a cluster, and runs nothing.
"""

import argparse
from collections.abc import Sequence
import contextlib
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

from launch import gin_support, outputs
from launch.stages import Cell, Study
from po_jax import files
from po_jax.reporting.progress import duration

DONE, FAILED = "done", "failed"
_PATIENCE = 120  # seconds that a command has to save and end, once it is told to


class Running:
    """A study under way.

    Args:
      study: what is to be done.
    """

    def __init__(self, study: Study):
        self._study = study
        self._began = time.monotonic()
        self._fingerprints: dict[str, str] = {}
        self._seen: list[Cell] = []
        self.states: dict[str, str] = {}

    def run(self) -> None:
        """Runs all cells that are not done, in order; one that fails stops none but its users."""
        total = sum(map(self._study.count, self._study.stages))
        number = 0
        for stage in self._study.stages:
            cells = self._study.cells(stage)
            if cells is None:
                count = self._study.count(stage)
                number += count
                self._say(f"{stage}: {count} cells left out, as nothing could be chosen for them")
                continue
            for cell in cells:
                number += 1
                self._run(cell, f"{number} of {total}  {cell.name}")

    def _run(self, cell: Cell, shown: str) -> None:
        used = [other for other in self._seen if cell.uses(other)]
        self._seen.append(cell)
        missing = [other.name for other in used if self.states[other.name] != DONE]
        if missing:
            self.states[cell.name] = f"needs {missing[0]}"
            self._say(f"{shown}: {self.states[cell.name]}")
            return
        fingerprint = cell.fingerprint([self._fingerprints[other.name] for other in used])
        self._fingerprints[cell.name] = fingerprint
        record = self._study.record(cell)
        if record.get("state") == DONE and record["fingerprint"] == fingerprint:
            self.states[cell.name] = DONE
            return
        _refuse_to_meet(cell, record)
        self._say(f"{shown}{self._left()}")
        began = time.monotonic()
        status, message = self._command(cell, fingerprint)
        seconds = time.monotonic() - began
        state = FAILED if status else DONE
        self.states[cell.name] = f"{FAILED}: {message}" if status else DONE
        self._note(cell, {"state": state, "fingerprint": fingerprint, "seconds": seconds})
        if status:
            self._say(f"{cell.name} {self.states[cell.name]}")

    def _command(self, cell: Cell, fingerprint: str) -> tuple[int, str]:
        """Runs a cell; its exit status and the last line of its log."""
        log = self._study.note(cell).with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", f"launch.{cell.program}", *cell.arguments]
        environment = {**os.environ, **cell.environment}
        with log.open("w") as file:
            # A session of its own: Ctrl-C must reach it once, and not again by `terminate`.
            process = subprocess.Popen(
                words,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            try:
                running = {"state": "running", "process": process.pid, "fingerprint": fingerprint}
                self._note(cell, running)
                process.wait()
            except BaseException:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_PATIENCE)
                process.kill()
                raise
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
        message = errors[-1].removeprefix("error: ") if errors else "without a word"
        return process.returncode, f"{message} ({log})"

    def _note(self, cell: Cell, record: dict[str, Any]) -> None:
        with files.written_whole(self._study.note(cell)) as beside:
            beside.write_text(json.dumps({**record, "command": cell.shell}, indent=1) + "\n")

    def _left(self) -> str:
        """What is left to do and about how long it will take; nothing while no cell is done."""
        known: dict[str, list[float]] = {}
        left: dict[str, int] = {}
        for stage in self._study.stages:
            cells = self._study.cells(stage)
            if cells is None:
                left[stage] = self._study.count(stage)
                continue
            for cell in cells:
                record = self._study.record(cell)
                if record.get("state") == DONE:
                    known.setdefault(stage, []).append(record["seconds"])
                if cell.name not in self.states:
                    left[stage] = left.get(stage, 0) + 1
        times = [seconds for of_stage in known.values() for seconds in of_stage]
        if not times:
            return ""
        mean = {
            stage: sum(known.get(stage, times)) / len(known.get(stage, times)) for stage in left
        }
        seconds = sum(count * mean[stage] for stage, count in left.items())
        return f"  {duration(seconds)} left"

    def _say(self, text: str) -> None:
        now = duration(time.monotonic() - self._began)
        print(f"[{now}] {text}", file=sys.stderr, flush=True)


def _refuse_to_meet(cell: Cell, record: dict[str, Any]) -> None:
    """Refuses a cell that still runs: whoever had begun it was killed, and it was not."""
    process = record.get("process")
    command = Path(f"/proc/{process}/cmdline")
    if process is not None and command.exists() and cell.output in command.read_text():
        raise ValueError(
            f"{cell.name}: expected it to have ended, but it runs as process {process}: wait for "
            "it, or end it"
        )


def write(study: Study, states: dict[str, str]) -> Path:
    """Writes the page, the figures and study.json; returns the page's path."""
    from po_jax.evaluation import plots
    from po_jax.studies.page import Line, study_page
    from po_jax.studies.results import Compared, Results

    folder = Path(study.folder)
    known = {stage: study.cells(stage) or [] for stage in study.stages}
    reports = {cell.place: study.report(cell) for cells in known.values() for cell in cells}
    evaluations = {
        stage: [
            Compared(cell.options, cell.policies | dict.fromkeys(report["best_of"], {}), report)
            for cell in cells
            if (report := reports[cell.place]) is not None
        ]
        for stage, cells in known.items()
        if study.stages[stage].program == "evaluate"
    }
    results = Results(evaluations)
    drawn = {caption: draw(results) for caption, draw in study.figures.items()}
    figures = {caption: figure for caption, figure in drawn.items() if figure is not None}
    lines = [
        Line(
            cell.name,
            states.get(cell.name, "not begun"),
            cell.shell,
            os.path.relpath(os.path.join(cell.output, "report.html"), folder)
            if reports[cell.place]
            else None,
        )
        for cells in known.values()
        for cell in cells
    ]
    with outputs.written_whole(folder) as beside:
        for number, (_, figure) in enumerate(figures.items(), start=1):
            plots.write_png(figure, beside / f"figure_{number}.png")
        svgs = {caption: plots.svg(figure) for caption, figure in figures.items()}
        page = study_page(study.title, study.text, svgs, results, lines)
        (beside / "study.html").write_text(page, encoding="utf-8")
        found = {
            "title": study.title,
            "cells": [vars(line) for line in lines],
            "points": {
                stage: [vars(point) for point in results.points(stage)] for stage in evaluations
            },
        }
        (beside / "study.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return folder / "study.html"


def commands(study: Study) -> str:
    """The commands of all cells that are known, a line each."""
    lines = []
    for stage in study.stages:
        cells = study.cells(stage)
        if cells is None:
            lines.append(f"# {stage}: {study.count(stage)} more, when it is known what is chosen")
            continue
        lines += [f"# {stage}", *(cell.shell for cell in cells)]
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> None:
    """Runs the configured study, or prints it."""
    study = gin_support.call(Study)
    if arguments.list:
        print(commands(study))
        return
    running = Running(study)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        running.run()
    finally:
        page = write(study, running.states)
    failed = [name for name, state in running.states.items() if state != DONE]
    print(page)
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(running.states)} cells are not done, {failed[0]!r} first: "
            f"{running.states[failed[0]]}"
        )


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return gin_support.run(run, argv, __doc__, runs=["gin/studies/gpo.gin"], options=_options)


if __name__ == "__main__":
    sys.exit(main())
