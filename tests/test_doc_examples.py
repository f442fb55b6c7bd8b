"""The examples of the documentation: what they print is true, and recipes are configurations."""

import doctest
from pathlib import Path
import re

import pytest

from launch import gin_support

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}


def _blocks(first_word: str) -> dict[str, str]:
    """Blocks of Python or gin that begin so, by page; without their indentation in lists."""
    found = {}
    for page, text in PAGES.items():
        for indent, block in re.findall(r"^( *)```python\n(.*?)^ *```$", text, re.M | re.S):
            block = re.sub(rf"^{indent}", "", block, flags=re.M)
            if block.startswith(first_word):
                found[f"{page}-{len(found)}"] = block
    return found


RECIPES = _blocks("include ")
ADDITIONS = _blocks("from __gin__ ")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if ">>>" in text])
def test_examples_print_what_they_say(page):
    failed, attempted = doctest.testfile(str(ROOT / page), module_relative=False)
    assert attempted and not failed


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_a_whole_configuration(recipe, tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text(recipe)
    gin_support.configure([str(file)], [])


@pytest.mark.parametrize("addition", ADDITIONS.values(), ids=ADDITIONS)
def test_an_addition_fits_an_online_run(addition, tmp_path, monkeypatch):
    (tmp_path / "my_judge.py").write_text("def prefer(prompt, first, second): return 0.5")
    monkeypatch.syspath_prepend(str(tmp_path))
    online = next(recipe for recipe in RECIPES.values() if "gin/runs/online.gin" in recipe)
    files = [tmp_path / "online.gin", tmp_path / "addition.gin"]
    for file, text in zip(files, (online, addition), strict=True):
        file.write_text(text)
    gin_support.configure([str(file) for file in files], [])
