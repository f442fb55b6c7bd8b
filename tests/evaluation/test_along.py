"""Checkpoints along a run's training, as policies of a comparison."""

import re

import jax
import numpy as np
import pytest

from po_jax.checkpoints.manager import CheckpointManager
from po_jax.evaluation import plots
from po_jax.evaluation.along import Stop, along_training
from po_jax.evaluation.page import html_page
from po_jax.evaluation.side_by_side import SideBySide
from po_jax.judges import CallableJudge
from po_jax.reporting.writers import JsonLines
from tests.evaluation import tiny
from tests.vocabularies import Numbers

WORDS = Numbers()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A start, a policy beside it, and a run of three checkpoints with its records."""
    folder = tmp_path_factory.mktemp("along")
    tiny.write(folder, mu=0, other=5)
    init = jax.jit(tiny.MODEL.init)
    manager = CheckpointManager(folder / "run", keep=9)
    for step in (2, 10, 30):
        manager.save(step, {"params": init(jax.random.key(step))})
    manager.close()
    records = JsonLines(folder / "run")
    for step in range(1, 31):
        records.scalars(step, "train", {"loss": 1.0 / step})
        if step % 10 == 0:
            records.scalars(step, "held_out", {"win_rate": 0.5 + step / 100, "kl": step / 10})
    return folder


def test_a_pattern_names_the_checkpoints_by_their_steps(run):
    found, runs = along_training({"mu": f"{run}/mu", "x": f"{run}/run/checkpoint_*"})
    assert found == {
        "mu": f"{run}/mu",
        **{f"x@{step}": f"{run}/run/checkpoint_{step}" for step in (2, 10, 30)},
    }
    assert runs == {"x": (Stop(2, "x@2"), Stop(10, "x@10"), Stop(30, "x@30"))}


@pytest.mark.parametrize(
    "pattern", ["nowhere/checkpoint_*", "run/step_*", "*/checkpoint_3", "run/check*_*", "ru*/c*"]
)
def test_a_pattern_that_fits_nothing_is_refused(run, pattern):
    with pytest.raises(ValueError, match=f"policy 'x': expected .*{re.escape(pattern)}"):
        along_training({"x": f"{run}/{pattern}"})


def test_the_last_meets_all_and_the_others_the_reference_alone(run):
    asked = []

    def judge(prompt, first, second):
        asked.append((first, second))
        return 0.5 + 0.5 * np.sign(len(first) - len(second))

    report = SideBySide(
        sampler=tiny.sampler(),
        policies={"mu": f"{run}/mu", "x": f"{run}/run/checkpoint_*", "other": f"{run}/other"},
        reference="mu",
        prompts=tiny.prompts(),
        judge=CallableJudge(judge, WORDS, antisymmetric=True),
        vocabulary=WORDS,
        regulariser=True,
    ).report()
    assert report["policies"] == ["mu", "x@30", "other"]
    meetings = 3 + 2  # of three policies, and of the reference with two on the way
    assert len(asked) == meetings * tiny.PROMPTS
    assert {name: set(rates) for name, rates in report["win_rate"].items()} == {
        "mu": {"x@30", "other"},
        "x@30": {"mu", "other"},
        "other": {"mu", "x@30"},
    }
    along = report["along"]["x"]
    assert [stop["step"] for stop in along] == [2, 10, 30]
    assert along[-1]["win_rate"] == report["win_rate"]["x@30"]["mu"]
    assert along[-1]["kl"] == report["kl"]["x@30"]
    assert len({stop["kl"]["mean"] for stop in along}) == 3
    assert report["regulariser"]["mu"]["mean"] == 0.0 < along[0]["regulariser"]["mean"]
    # One row a policy in the table and in the examples, though five were asked.
    assert set(report["examples"][0]["completions"]) == {"mu", "x@30", "other"}
    assert set(report["by_length"]) == {"x@30", "other"}
    curves = report["training"]["x@30"]
    assert curves["train/loss"] == {
        "step": list(range(1, 31)),
        "value": [1.0 / step for step in range(1, 31)],
    }
    assert curves["held_out/kl"]["value"] == [1.0, 2.0, 3.0]
    assert set(report["training"]) == {"x@30"}

    drawn = plots.figures(report)
    win_rates, kls = drawn["along_training"].axes
    np.testing.assert_allclose(win_rates.lines[1].get_xdata(), [2, 10, 30])
    np.testing.assert_allclose(
        win_rates.lines[1].get_ydata(), [100 * stop["win_rate"]["mean"] for stop in along]
    )
    np.testing.assert_allclose(kls.lines[0].get_ydata(), [stop["kl"]["mean"] for stop in along])
    assert [axes.get_title() for axes in drawn["training_curves"].axes[:3]] == [
        "train: loss",
        "held out: win rate",
        "held out: kl",
    ]
    page = html_page(report, {name: plots.svg(figure) for name, figure in drawn.items()}, "T")
    assert "Along the training" in page and "<th>E[h²] / 2</th>" in page


def test_all_may_meet_the_reference_alone(run):
    policies = {name: f"{run}/{name}" for name in ("mu", "other")} | {"x": f"{run}/run"}
    options = {
        "sampler": tiny.sampler(),
        "policies": policies,
        "reference": "mu",
        "prompts": tiny.prompts(),
        "judge": CallableJudge(lambda *texts: 0.75, WORDS, antisymmetric=True),
        "vocabulary": WORDS,
    }
    whole = SideBySide(**options).report()
    report = SideBySide(**options, round_robin=False).report()
    assert set(report["win_rate"]["mu"]) == {"other", "x"}
    assert report["win_rate"]["x"] == {"mu": whole["win_rate"]["x"]["mu"]}
    assert "win_rate_matrix" in plots.figures(whole)
    drawn = plots.figures(report)
    assert "win_rate_matrix" not in drawn and "win_rates_over_reference" in drawn
    html_page(report, {name: plots.svg(figure) for name, figure in drawn.items()}, "T")


def test_records_that_are_none_of_ours_are_left_out(run, caplog):
    from po_jax.evaluation import training_curves

    place = run / "other" / "metrics.jsonl"
    for text in ('{"loss": 1}\n', '{"split": "train", "loss": 1}\n', "loss 1\n"):
        place.write_text(text)
        assert training_curves.of_run(run / "other") == {}
    place.unlink()
    assert "no training curves" in caplog.text
    long = JsonLines(run / "long")
    for step in range(1001):
        long.scalars(step, "train", {"loss": float(step)})
    steps = training_curves.of_run(run / "long")["train/loss"]["step"]
    assert len(steps) <= training_curves.MAX_POINTS and steps[-1] == 1000
