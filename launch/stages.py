"""What a study is made of: stages, and the commands that they come to, one for each combination.

Nothing here knows JAX: the commands do the work, each in a process of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
from itertools import product
import json
import os
from pathlib import Path
import re
import shlex
import string
from typing import Any

PROGRAMS = ("train", "label", "evaluate")
START = "start"  # the name of the policy that the others started from, in every report

OPTIONS = "$options"  # where the arguments of the options stand among a stage's

Options = Mapping[str, str]  # axis -> the option's name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Commands of one program, one for each combination of some options.

    In arguments, the output and the environment, $NAME stands for what the study gives as NAME, for
    the option of the axis NAME, or, as $folder, for the study's folder.

    Attributes:
      program: "train", "label" or "evaluate".
      arguments: gin files (what ends in .gin) and bindings, "NAME=VALUE", and lists of such;
        "$options" stands for those of the options, which otherwise come last.
      axes: by name, values of the gin macro of that name; or, by the option's name, its arguments.
      output: where a command writes, if not in a folder of its own.
      environment: variables of its process.
      policies: stages of trained policies that an evaluation compares: those of their cells that
        agree with it on every axis that both have.
      along: whether it compares all their checkpoints with the start, not the last alone.
      chosen: axis -> stage of evaluations: the option with which the policy has won most often
        against the start, among those that agree on every axis that both have.

    Raises:
      ValueError: an unknown program, or what only another has.
    """

    program: str
    arguments: Sequence[Any]
    axes: Mapping[str, Sequence[Any] | Mapping[str, Sequence[Any]]] = dataclasses.field(
        default_factory=dict
    )
    output: str | None = None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    policies: Sequence[str] = ()
    along: bool = False
    chosen: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.program not in PROGRAMS:
            raise ValueError(f"Stage.program: expected one of {PROGRAMS}, got {self.program!r}")
        if self.program != "evaluate" and (self.policies or self.along):
            raise ValueError(
                f"Stage.policies: expected them of the program 'evaluate' alone, got {self.program}"
            )
        if self.program != "evaluate" and self.output is None and self.program != "train":
            raise ValueError(f"Stage.output: expected a path for the program {self.program!r}")
        for axis, options in self.axes.items():
            if not options or isinstance(options, str):
                raise ValueError(f"Stage.axes: expected options of {axis!r}, got {options!r}")

    def options(self, axis: str) -> dict[str, list[str]]:
        """The options of an axis by name, and the arguments that each stands for."""
        given = self.axes[axis]
        if isinstance(given, Mapping):
            return {str(name): _flat(arguments) for name, arguments in given.items()}
        return {str(x): [f"{axis}={x if isinstance(x, str) else repr(x)}"] for x in given}

    def combinations(self) -> Iterator[tuple[dict[str, str], list[str]]]:
        """Every combination of options: their names by axis, and their arguments."""
        axes = [self.options(axis) for axis in self.axes]
        for names in product(*axes):
            arguments = [
                argument
                for options, name in zip(axes, names, strict=True)
                for argument in options[name]
            ]
            yield dict(zip(self.axes, names, strict=True)), arguments


@dataclasses.dataclass(frozen=True)
class Cell:
    """One command of a study.

    Attributes:
      stage: its stage.
      options: by axis, those that were chosen among them.
      program: of `launch`.
      arguments: of the command.
      environment: variables of its process.
      output: the folder or file that it writes.
      policies: of an evaluation, the options of each policy that it compares.
    """

    stage: str
    options: Options
    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    output: str
    policies: Mapping[str, Options] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The stage and the options."""
        return self.place.replace("/", ": ", 1)

    @property
    def place(self) -> str:
        """The cell's own part of a path."""
        return _place(self.stage, self.options)

    @property
    def shell(self) -> str:
        """The command as it is typed."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        words = ["python", "-m", f"launch.{self.program}", *self.arguments]
        return " ".join([*variables, *map(shlex.quote, words)])

    def uses(self, other: "Cell") -> bool:
        """Whether it reads what another cell writes."""
        there = other.output if other.program in ("train", "evaluate", "convert") else None
        there = there or os.path.dirname(other.output)
        fits = re.compile(rf"{re.escape(there)}(?![\w.,=@-])")
        return any(fits.search(text) for text in (*self.arguments, *self.environment.values()))

    def fingerprint(self, used: Sequence[str]) -> str:
        """Changes with the command, and with the fingerprints of what it uses."""
        told = json.dumps([self.shell, *used])
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def label(options: Options) -> str:
    """Options as they stand in a path and in the name of a policy; numbers with their axis."""
    parts = [
        f"{axis.lower()}={name}" if re.fullmatch(r"[-+.\de]+|None|True|False", name) else name
        for axis, name in options.items()
    ]
    return re.sub(r"[^\w.,=+-]", "_", ",".join(parts))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Stages, one after the other, and what is drawn of them.

    Attributes:
      folder: of everything that the study writes.
      stages: by name, in their order.
      title, text: what is studied.
      given: what $NAME stands for in the stages.
      start: the policy that the others start from; in the stages, $start. It may be the study's
        own: $folder stands in it for the folder.
      figures: by caption, what draws the results, or None where there are none yet.
    """

    folder: str
    stages: Mapping[str, Stage]
    title: str
    start: str
    text: str = ""
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        start = _Filling("start", {**self.given, "folder": self.folder})(self.start)
        object.__setattr__(self, "start", start)
        for name, stage in self.stages.items():
            earlier = list(self.stages)[: list(self.stages).index(name)]
            for other in (*stage.policies, *stage.chosen.values()):
                if other not in earlier:
                    raise ValueError(
                        f"stage {name!r}: expected earlier stages, {earlier}, got {other!r}"
                    )

    def cells(self, name: str) -> list[Cell] | None:
        """The commands of a stage; None while it is not known what will be chosen for it.

        Raises:
          ValueError: if an argument speaks of what is not given, or two cells have one name.
        """
        cells = []
        for options, arguments in self.stages[name].combinations():
            cell = self._cell(name, options, arguments)
            if cell is None:
                return None
            cells.append(cell)
        places = [cell.place for cell in cells]
        if len(set(places)) < len(places):
            twice = next(place for place in places if places.count(place) > 1)
            raise ValueError(
                f"stage {name!r}: expected options of different names, got {twice} twice"
            )
        return cells

    def count(self, name: str) -> int:
        """How many cells a stage has."""
        return sum(1 for _ in self.stages[name].combinations())

    def _cell(self, name: str, options: dict[str, str], arguments: list[str]) -> Cell | None:
        stage = self.stages[name]
        for axis, evaluating in stage.chosen.items():
            best = self._best(axis, evaluating, options)
            if best is None:
                return None
            option, more = best
            options, arguments = {**options, axis: option}, [*arguments, *more]
        fill = _Filling(name, {**self.given, "folder": self.folder, "start": self.start, **options})
        own = os.path.join(self.folder, _place(name, options))
        output = fill(stage.output) if stage.output else own
        filled = [fill(argument) for argument in _spliced(_flat(stage.arguments), arguments)]
        policies: dict[str, Options] = {}
        if stage.program == "train":
            filled.append(f"MODEL_DIR={output}")
        elif stage.program == "evaluate":
            compared = self._policies(stage, options)
            if compared is None:
                return None
            paths, policies = compared
            filled += [f"POLICIES={paths!r}", f"REFERENCE={START}", f"OUTPUT_DIR={output}"]
        elif stage.program in ("label", "sample"):
            filled.append(f"OUTPUT={output}")
        words = [_word(argument) for argument in filled]
        if stage.program not in ("train", "convert"):
            words.append("--overwrite")
        environment = {fill(key): fill(value) for key, value in stage.environment.items()}
        return Cell(name, options, stage.program, tuple(words), environment, output, policies)

    def _policies(
        self, stage: Stage, options: Options
    ) -> tuple[dict[str, str], dict[str, Options]] | None:
        """The checkpoints that an evaluation compares, and the options of each, by name."""
        paths, known = {START: self.start}, {}
        for other in stage.policies:
            cells = self.cells(other)
            if cells is None:
                return None
            for cell in cells:
                if _agree(cell.options, options) and self.record(cell).get("state") != "failed":
                    of_policy = {a: x for a, x in cell.options.items() if a not in options}
                    policy = label(of_policy) or other
                    paths[policy] = cell.output + ("/checkpoint_*" if stage.along else "")
                    known[policy] = cell.options
        return paths, known

    def _best(self, axis: str, evaluating: str, options: Options) -> tuple[str, list[str]] | None:
        """The option of an axis that won most often, and its arguments; None if it is not known."""
        rates: dict[str, float] = {}
        for cell in self.cells(evaluating) or ():
            if not _agree(cell.options, options):
                continue
            report = self.report(cell)
            if report is None:
                return None
            for policy, of_policy in cell.policies.items():
                if _agree(of_policy, options) and policy in report["win_rate"]:
                    rates[of_policy[axis]] = report["win_rate"][policy][START]["mean"]
        if not rates:
            return None
        best = max(rates, key=lambda option: rates[option])
        for other in self.stages[evaluating].policies:
            if axis in self.stages[other].axes:
                return best, self.stages[other].options(axis)[best]
        raise ValueError(f"expected {axis!r} among the axes of what {evaluating!r} compares")

    def record(self, cell: Cell) -> dict[str, Any]:
        """What was noted of a cell; nothing if it has not been begun."""
        path = self.note(cell)
        return json.loads(path.read_text()) if path.exists() else {}

    def note(self, cell: Cell) -> Path:
        """The file that says what became of a cell."""
        return Path(self.folder, "cells", f"{cell.place}.json")

    def report(self, cell: Cell) -> dict[str, Any] | None:
        """What a finished evaluation found; None of any other cell."""
        if cell.program != "evaluate" or self.record(cell).get("state") != "done":
            return None
        return json.loads(Path(cell.output, "report.json").read_text())


class _Filling:
    """Puts what is given in the place of $NAME."""

    def __init__(self, stage: str, given: Mapping[str, Any]):
        self._stage, self._given = stage, given

    def __call__(self, text: str) -> str:
        try:
            return string.Template(text).substitute(self._given)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"stage {self._stage!r}: expected one of ${', $'.join(self._given)} in {text!r}, "
                f"got {error}"
            ) from error


def _place(stage: str, options: Options) -> str:
    return f"{stage}/{label(options)}" if options else stage


def _flat(arguments: Sequence[Any]) -> list[str]:
    """Arguments, and lists of them that several stages share, in one list."""
    found = []
    for argument in arguments:
        found += [argument] if isinstance(argument, str) else _flat(argument)
    return found


def _spliced(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    if OPTIONS not in arguments:
        return [*arguments, *options]
    place = list(arguments).index(OPTIONS)
    return [*arguments[:place], *options, *arguments[place + 1 :]]


def _word(argument: str) -> str:
    return f"--gin_file={argument}" if argument.endswith(".gin") else f"--gin.{argument}"


def _agree(one: Options, other: Options) -> bool:
    return all(other[axis] == option for axis, option in one.items() if axis in other)
