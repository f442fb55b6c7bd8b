"""The page of propositions names tests and figures that exist."""

from pathlib import Path
import re

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")


def test_every_test_it_names_is_in_the_file_it_names():
    named = 0
    for paragraph in PAGE.split("\n\n"):
        files = re.findall(r"`(test_\w+\.py)`", paragraph)
        sources = [(ROOT / "tests" / "game" / file).read_text(encoding="utf-8") for file in files]
        for name in re.findall(r"`(test_\w+)`", paragraph):
            assert any(f"def {name}(" in source for source in sources), f"{files} lack {name}"
            named += 1
    assert named > 30


def test_every_figure_is_there_and_none_is_forgotten():
    shown = set(re.findall(r"\(figures/(\w+\.png)\)", PAGE))
    assert shown == {path.name for path in (ROOT / "docs" / "figures").glob("*.png")}
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "figures").iterdir()) < 2**20
