"""Mistakes in gin files and bindings, each answered in a line before anything is built."""

import sys

import pytest

from launch import gin_check, gin_files

FILE = """
from __gin__ import dynamic_registration
from launch import settings
from po_jax.losses import objectives
from po_jax.losses import pairwise
import optax

TAU = %gin.REQUIRED
LENGTHS = {"inputs": 8, "targets": 4}
objectives.contrastive.loss = @pairwise.ipo
pairwise.ipo.tau = %TAU
train/pairwise.dpo:
  tau = 1.0
settings.prompt_length.lengths = %LENGTHS
annotator/gin.singleton.constructor = @optax.sgd
"""


@pytest.fixture
def check(tmp_path):
    def run(*bindings, file=FILE):
        (tmp_path / "mine.gin").write_text(file)
        gin_check.check(gin_files.read(["mine.gin"], bindings, [str(tmp_path)]))

    return run


@pytest.mark.parametrize(
    "bindings",
    [
        ["TAU=0.5"],
        ["TAU=1", "train/eval/pairwise.dpo.tau=2", "objectives.contrastive.loss=@a/pairwise.slic"],
        ["TAU=%OTHER", "OTHER=@optax.linear_schedule()"],
        ["pairwise.ipo.tau=3", "TAU=1"],
        ["TAU=1", "import json", "json.dumps.indent=2"],
    ],
)
def test_what_is_right_passes(check, bindings):
    assert check(*bindings) is None


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["TAU=1e999"], "--gin.TAU=1e999: expected a finite number, got inf"),
        (["TAU=[{'a': -1e999}]"], "--gin.TAU=[{'a': -1e999}]: expected a finite number, got -inf"),
        (["TAUU=1"], "--gin.TAUU=1: nothing reads the macro 'TAUU'. Nearest: TAU."),
        ([], "values are missing: give --gin.TAU=... (mine.gin:8)"),
        (
            ["TAU=1", "objectives.slic_hf.delta=%gin.REQUIRED"],
            "values are missing: give --gin.objectives.slic_hf.delta=... (--gin.objectives",
        ),
        (["TAU=%TAUX"], "--gin.TAU=%TAUX: the macro 'TAUX' has no value. Nearest: TAU."),
        (["TAU=%TAU"], "--gin.TAU=%TAU: the macro 'TAU' refers to itself"),
        (["TAU=1", "pairwise.ipo.tua=1"], "pairwise.ipo has no parameter 'tua'. Nearest: tau."),
        (["TAU=1", "pairwise.ipp.tau=1"], "nothing is named 'pairwise.ipp'. Nearest: pairwise.ipo"),
        (["TAU=1", "models.T5.size=1"], "--gin.models.T5.size=1: no file imports 'models'."),
        (
            ["TAU=1", "objectives.contrastive.loss=@pairwise.slik"],
            "--gin.objectives.contrastive.loss=@pairwise.slik: nothing is named 'pairwise.slik'. "
            "Nearest: pairwise.slic",
        ),
        (["TAU=1", "LENGTHS=[@settings.x]"], "nothing is named 'settings.x'"),
        (
            ["TAU='1'"],
            "--gin.TAU='1': expected float | int, got '1' (for pairwise.ipo.tau, mine.gin:11)",
        ),
        (
            ["TAU=1", "pairwise.ipo.tau=None"],
            "--gin.pairwise.ipo.tau=None: expected float | int, got None",
        ),
        (
            ["TAU=1", "annotator/gin.singleton.constructor=my_judge.ask"],
            "my_judge.ask: expected a function (@NAME), got 'my_judge.ask'",
        ),
        (["TAU=1", "annotator/gin.singleton.constructr=1"], "'constructr'. Nearest: constructor."),
        (
            ["TAU=1", "LENGTHS={'inputs':'16'}"],
            "--gin.LENGTHS={'inputs':'16'}: expected Mapping[str, int], got {'inputs': '16'} "
            "(for settings.prompt_length.lengths, mine.gin:14)",
        ),
    ],
)
def test_a_mistake_is_named(check, bindings, message):
    with pytest.raises(gin_files.ConfigError) as caught:
        check(*bindings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


HEAD = "from __gin__ import dynamic_registration\n"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            HEAD + "from po_jax.losses import pairwize\n",
            "mine.gin:2: 'po_jax.losses.pairwize' cannot be imported: No module named "
            "'po_jax.losses.pairwize'. Nearest: po_jax.losses.pairwise",
        ),
        (
            HEAD + "from po_jax.losses import pairwise\npairwise.ipo.tau = 'x'\n",
            "mine.gin:3: pairwise",
        ),
        (HEAD + "pairwise.ipo.tau = 1\n", "mine.gin:2: no file imports 'pairwise'."),
    ],
)
def test_a_mistake_in_a_file_is_named_by_its_line(check, file, message):
    with pytest.raises(gin_files.ConfigError) as caught:
        check(file=file)
    assert message in str(caught.value)


def test_a_users_module_that_fails_is_one_line(check, tmp_path, monkeypatch):
    (tmp_path / "my_judge.py").write_text("raise KeyError('OPENAI_KEY')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(gin_files.ConfigError, match="^mine.gin:2: 'my_judge' .*'OPENAI_KEY'"):
        check(file=HEAD + "import my_judge\n")
    sys.modules.pop("my_judge", None)


def test_what_another_file_overrides_is_not_missing(check, tmp_path):
    (tmp_path / "inner.gin").write_text(
        HEAD + "from po_jax.losses import pairwise\npairwise.ipo.tau = %gin.REQUIRED\n"
    )
    override = "include 'inner.gin'\nimport po_jax.losses.pairwise as p\np.ipo.tau = 1.0\n"
    assert check(file=HEAD + override) is None
