"""The quickstart's stages, each a command that its files can answer; nothing is run."""

import gin
import pytest

from launch import gin_support, quickstart
from po_jax.checkpoints import about
from po_jax.checkpoints.load import open_checkpoint


@pytest.fixture
def stages(tmp_path):
    return {name: arguments for name, _, arguments in quickstart.stages(tmp_path)}


def test_every_stage_is_complete(stages):
    assert {"preference model", "report", *quickstart.METHODS} < set(stages)
    for arguments in stages.values():
        parsed = [argument for argument in arguments if argument != "--overwrite"]
        gin_support.parse(parsed, "")
    gin.clear_config()


def test_online_methods_ask_the_judge_that_was_trained(stages, tmp_path):
    for method in quickstart.METHODS:
        asks = f"--gin.JUDGE_CHECKPOINT_PATH='{tmp_path}/judge'" in stages[method]
        assert asks == (method != "ipo")
    assert f"--gin.MODEL_DIR='{tmp_path}/judge'" in stages["preference model"]


def test_what_is_shipped_is_what_it_is_taken_for():
    of_the_studies = quickstart.START.with_name("docstrings_reward")
    shipped = (quickstart.START, quickstart.JUDGE_START, of_the_studies)
    start, judge, reward = (open_checkpoint(path).about.kind for path in shipped)
    assert start in about.POLICIES
    assert (judge, reward) == ("a trained preference model", "a trained reward model")
