"""What Weights & Biases is told, by a stand-in for its package."""

import sys
import types

import pytest

from po_jax.reporting.weights_and_biases import WeightsAndBiases
from tests import buckets


class Run:
    def __init__(self, settings):
        self.settings, self.axes, self.logged = settings, {}, []

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, values):
        self.logged.append(values)


@pytest.fixture
def runs(monkeypatch):
    """Runs that were begun, oldest first."""
    begun = []

    def init(**settings):
        begun.append(Run(settings))
        return begun[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Html=str))
    return begun


def test_records_are_logged_over_our_own_step(runs, tmp_path):
    writer = WeightsAndBiases(tmp_path / "ipo_md", project="summaries")
    writer.scalars(3, "train", {"loss": 0.5})
    writer.text(3, "held_out", "**a** < b")
    (run,) = runs
    assert (run.settings["project"], run.settings["name"]) == ("summaries", "ipo_md")
    assert run.axes == {"*": "step"}
    assert run.logged == [
        {"step": 3, "train/loss": 0.5},
        {"step": 3, "held_out/text": "<pre>**a** &lt; b</pre>"},
    ]


def test_a_resumed_run_goes_on_as_the_same_and_another_does_not(runs, tmp_path):
    for folder, step in (("a", 0), ("a", 4), ("b", 0)):
        WeightsAndBiases(tmp_path / folder, step)
    first, resumed, other = (run.settings for run in runs)
    assert first["id"] == resumed["id"] != other["id"]
    assert first["resume"] == resumed["resume"] == "allow"


def test_a_run_in_a_bucket_keeps_its_id_there_and_nothing_of_its_name_here(
    runs, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with buckets.in_memory():
        for _ in range(2):
            WeightsAndBiases("gs://bucket/runs/ipo_md")
        (kept,) = buckets.Buckets.store
    first, resumed = (run.settings for run in runs)
    assert kept == "/bucket/runs/ipo_md/wandb_id" and first["id"] == resumed["id"]
    assert first["name"] == "ipo_md"
    assert first["dir"] is None  # wandb's own files are on this machine
    assert not list(tmp_path.iterdir())


def test_without_wandb_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"install po_jax\[wandb\], or leave this writer out"):
        WeightsAndBiases(tmp_path)
