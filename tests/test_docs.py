"""The documentation, held against the code: files exist, examples run, recipes parse."""

import doctest
from pathlib import Path
import re

import pytest

from launch import gin_support

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

# A path from the top of the checkout, with {a,b} for several.
FILE = re.compile(
    r"\b((?:po_jax|gin|tasks|launch|tests)/[\w./{},]*[\w}]\.(?:py|gin|md)|gin/[\w/]+/)"
)


def _blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page, without their indentation in lists."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", page.read_text(), re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def _alternatives(path: str) -> list[str]:
    match = re.search(r"{([^}]*)}", path)
    if match is None:
        return [path]
    return [path.replace(match[0], choice) for choice in match[1].split(",")]


def _recipes(start: str) -> list:
    return [
        pytest.param(block, id=f"{name}-{index}")
        for name, page in zip(NAMES, PAGES, strict=True)
        for index, block in enumerate(_blocks(page, "python"))
        if block.startswith(start)
    ]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page):
    named = {path for match in FILE.findall(page.read_text()) for path in _alternatives(match)}
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]


def test_examples_say_what_they_print():
    tried = 0
    for page in PAGES:
        failed, attempted = doctest.testfile(str(page), module_relative=False)
        assert not failed, page
        tried += attempted
    assert tried


@pytest.mark.parametrize("recipe", _recipes("include"))
def test_a_recipe_is_a_whole_configuration(recipe, tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text(recipe)
    gin_support.configure([str(file)], [])


@pytest.mark.parametrize("addition", _recipes("from __gin__"))
def test_an_addition_fits_an_online_run(addition, tmp_path, monkeypatch):
    for function in _recipes("import json"):
        (tmp_path / "my_judge.py").write_text(function.values[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    online = next(
        recipe.values[0] for recipe in _recipes("include") if "online" in recipe.values[0]
    )
    for name, text in (("online.gin", online), ("addition.gin", addition)):
        (tmp_path / name).write_text(text)
    gin_support.configure([str(tmp_path / "online.gin"), str(tmp_path / "addition.gin")], [])
