"""Every experiment and recipe opens with a command that its own file can answer."""

from itertools import takewhile
import re
import shlex

import gin
import pytest

from launch import GIN_FOLDER, gin_support

FOLDERS = [GIN_FOLDER / name for name in ("experiments", "recipes")]
EXPERIMENTS = sorted(path for folder in FOLDERS for path in folder.rglob("*.gin"))
# Files that others include.
PARTS = {
    f"experiments/{name}.gin"
    for name in (
        *(f"docstrings/{part}" for part in ("judge", "model", "online", "policy", "task")),
        *(f"tldr/{part}" for part in ("judge", "model", "policy", "task")),
    )
}


def commands(path):
    """The arguments of each `python -m launch.x` in the comment that a file opens with."""
    comment = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    text = "\n".join(line.removeprefix("#") for line in comment).replace("\\\n", " ")
    return re.findall(r"python -m launch\.(\w+) (.*)", text)


@pytest.mark.parametrize(
    "path",
    [p for p in EXPERIMENTS if str(p.relative_to(GIN_FOLDER)) not in PARTS],
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_the_command_is_complete(path):
    found = commands(path)
    own = f"--gin_file=gin/{path.relative_to(GIN_FOLDER)}"
    assert own in shlex.split(found[0][1])
    for program, arguments in found:
        if program != "convert":
            gin_support.parse(shlex.split(arguments), "")
    gin.clear_config()


def test_no_part_is_forgotten():
    found = {str(path.relative_to(GIN_FOLDER)) for path in EXPERIMENTS if not commands(path)}
    assert found == PARTS
