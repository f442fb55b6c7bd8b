"""Every experiment opens with a command that its own file, and all that it names, can answer."""

from itertools import takewhile
import re
import shlex

import gin
import pytest

from launch import GIN_FOLDER, gin_support

EXPERIMENTS = sorted((GIN_FOLDER / "experiments").rglob("*.gin"))
# Files that others include.
PARTS = {"model.gin", "task.gin", "policy.gin", "online.gin", "judge.gin"}


def commands(path):
    """The arguments of each `python -m launch.x` in the comment that a file opens with."""
    comment = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    text = "\n".join(line.removeprefix("#") for line in comment).replace("\\\n", " ")
    return re.findall(r"python -m launch\.(\w+) (.*)", text)


@pytest.mark.parametrize(
    "path",
    [p for p in EXPERIMENTS if p.name not in PARTS],
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_the_command_is_complete(path):
    found = commands(path)
    own = f"--gin_file=gin/experiments/{path.parent.name}/{path.name}"
    assert own in shlex.split(found[0][1])
    for program, arguments in found:
        if program != "convert":
            gin_support.parse(shlex.split(arguments), "")
    gin.clear_config()


def test_no_part_is_forgotten():
    assert {path.name for path in EXPERIMENTS if not commands(path)} == PARTS
