import inspect
from pathlib import Path
import re

import numpy as np
import pytest

from po_jax.game import facts, offline_studies, online_studies, plots
from po_jax.game.exhibits import Exhibit, write

GIN_FILE = Path(__file__).resolve().parents[2] / "gin" / "runs" / "play.gin"
EXHIBITS = [
    Exhibit("first", online_studies.identities, plots.identities, facts.identities),
    Exhibit("second", online_studies.variances, plots.variances, facts.variances),
    Exhibit("third", offline_studies.functions, plots.functions, facts.functions),
    Exhibit(
        "fourth",
        offline_studies.unseen_completion,
        plots.unseen_completion,
        facts.unseen_completion,
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("play")
    write(str(folder / "made"), EXHIBITS, plots.save)
    return folder / "made"


def test_every_exhibit_has_a_figure_and_facts(folder):
    for exhibit in EXHIBITS:
        image = (folder / f"{exhibit.name}.png").read_bytes()
        assert image.startswith(b"\x89PNG") and len(image) > 10_000
    lines = (folder / "facts.md").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["| claim | measured |", "| --- | --- |"]
    assert len(lines) == 2 + 3 + 2 + 6 + 5
    assert all(line.count("|") == 3 for line in lines)


def test_the_table_has_the_numbers_of_the_studies(folder):
    table = (folder / "facts.md").read_text(encoding="utf-8")
    assert "| size of f″(0) / f′(0), savage | 0.5 |" in table
    first = next(line for line in table.splitlines() if "−(4/τ)" in line)
    assert float(first.split("|")[2]) < 1e-12


def test_the_command_shows_every_study_with_its_own_figure_and_facts():
    text = GIN_FILE.read_text(encoding="utf-8")
    made = re.findall(
        r"^(\w+)/exhibits.Exhibit:\n"
        r'  name = "(\w+)"\n'
        r"  study = @\w+_studies.(\w+)\n"
        r"  figure = @plots.(\w+)\n"
        r"  facts = @facts.(\w+)\n",
        text,
        re.M,
    )
    assert all(len(set(names)) == 1 for names in made), made
    shown = re.findall(r"@(\w+)/exhibits.Exhibit\(\)", text)
    written = [name for name, value in vars(facts).items() if inspect.isfunction(value)]
    assert shown == [names[0] for names in made]
    assert sorted(shown) == sorted(written)


def test_stationary_points_of_the_figure_are_walked_to():
    numbers = online_studies.stationary_points(tau=0.5)
    for i, beta in enumerate(numbers["walked_beta"]):
        solved = numbers["policy"][np.abs(numbers["beta"] - beta).argmin()]
        np.testing.assert_allclose(numbers["ipo_md"][i], solved, atol=1e-8)
        np.testing.assert_allclose(numbers["nash_md_pg"][i], solved, atol=1e-8)
