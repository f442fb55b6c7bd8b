"""What the pages name exists: files, modules, commands and links."""

import importlib.util
from pathlib import Path
import pkgutil
import re

import pytest

from launch import convert

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = "po_jax|tasks|launch|tests|gin|docs"


def _found(pattern: str, page: Path) -> list[str]:
    return sorted(set(re.findall(pattern, page.read_text(encoding="utf-8"), re.M)))


def _alternatives(path: str) -> list[str]:
    """`a/{b,c}.gin` means `a/b.gin` and `a/c.gin`."""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", path)
    return [path] if match is None else [f"{match[1]}{x}{match[3]}" for x in match[2].split(",")]


@pytest.fixture(params=PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request):
    return request.param


def test_files_and_folders_are_there(page):
    named = _found(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./{{,}}-]*[\w}}/])", page)
    paths = [path for name in named for path in _alternatives(name)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_links_lead_somewhere(page):
    links = _found(r"\]\((?!https?:|#)([^)#\s]+)", page)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_modules_run(page):
    modules = _found(rf"python -m ((?:{FOLDERS})[\w.]*\w)", page)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_names_of_the_library_exist(page):
    if page.name == "CHANGELOG.md":
        return  # It tells old names, too.
    for name in _found(r"(?<![\w/])(po_jax(?:\.\w+)+)(?![\w/.]*\.(?:py|gin|md))", page):
        if not name.startswith("po_jax.t5x."):  # needs T5X
            pkgutil.resolve_name(name)  # An ImportError or AttributeError names what is missing.


def test_imports_work(page):
    for line in _found(rf"^(from (?:{FOLDERS})[\w.]* import \w+)", page):
        exec(line, {})  # An ImportError names what is missing.


def test_commands_and_targets_are_there(page):
    setup, makefile = (ROOT / "setup.py").read_text(), (ROOT / "Makefile").read_text()
    commands = re.search(r"^COMMANDS = \((.*?)\)", setup, re.M | re.S)[1]
    assert [name for name in _found(r"po-jax-(\w+)", page) if f'"{name}"' not in commands] == []
    targets = _found(r"(?:^|`)make (\w[\w-]*)", page)
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, re.M)] == []


def test_the_converters_options_are_all_explained():
    text = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"--[a-z]\w*", text)) - {"--gin", "--gin_file"}
    actions = convert._parser()._actions
    options = {option for action in actions for option in action.option_strings}
    assert explained == options - {"-h", "--help"}
