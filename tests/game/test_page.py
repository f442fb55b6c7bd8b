import inspect

import numpy as np
import pytest

from po_jax.game import facts, offline_studies, online_studies, page, plots

STUDIES = [
    *(getattr(online_studies, name) for name in ("identities", "variances")),
    *(getattr(offline_studies, name) for name in ("functions", "unseen_completion")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("play")
    page.write(str(folder / "made"), STUDIES, plots.draw)
    return folder / "made"


def test_every_study_has_a_figure_and_facts(folder):
    for study in STUDIES:
        image = (folder / f"{study.__name__}.png").read_bytes()
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


def test_every_summary_belongs_to_a_study_and_a_figure():
    names = [name for name, value in vars(facts).items() if inspect.isfunction(value)]
    assert len(names) == 10
    for name in names:
        assert hasattr(online_studies, name) != hasattr(offline_studies, name), name
        assert hasattr(plots, name), name


def test_stationary_points_of_the_figure_are_walked_to():
    numbers = online_studies.stationary_points(tau=0.5)
    for i, beta in enumerate(numbers["walked_beta"]):
        solved = numbers["policy"][np.abs(numbers["beta"] - beta).argmin()]
        np.testing.assert_allclose(numbers["ipo_md"][i], solved, atol=1e-8)
        np.testing.assert_allclose(numbers["nash_md_pg"][i], solved, atol=1e-8)
