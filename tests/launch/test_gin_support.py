"""The command line: files found from anywhere, and mistakes answered with the right name."""

import gin
import jax.numpy as jnp
import pytest

from launch import gin_support
from po_jax.losses import pairwise

FILE = """
from __gin__ import dynamic_registration
from po_jax.losses import objectives
from po_jax.losses import pairwise

TAU = %gin.REQUIRED
objectives.contrastive.loss = @pairwise.ipo
pairwise.ipo.tau = %TAU
pairwise.dpo.tau = 1.0
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.gin").write_text(FILE)
    yield str(tmp_path / "mine.gin")
    gin.clear_config()


def test_bindings_of_the_command_line_come_last(file):
    gin_support.parse([f"--gin_file={file}", "--gin.TAU=0.5", "--gin.pairwise.dpo.tau=3"], "")
    assert gin.query_parameter("pairwise.dpo.tau") == 3
    loss = gin.get_configurable(pairwise.ipo)(jnp.ones(3), jnp.ones(3))
    assert loss.tolist() == [0.0] * 3  # (1 - 1 / (2 tau))^2


def test_bindings_may_refer_to_what_the_files_import(file):
    gin_support.parse(
        [f"--gin_file={file}", "--gin.TAU=1", "--gin.objectives.contrastive.loss=@pairwise.slic"],
        "",
    )
    assert "@pairwise.slic" in gin.config_str()


def test_files_are_found_from_any_directory(file, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (tmp_path / "outer.gin").write_text("include 'mine.gin'\nTAU = 2.0\n")
    gin_support.parse([f"--gin_search_paths={tmp_path}", "--gin_file=outer.gin"], "")
    assert gin.query_parameter("TAU/macro.value") == 2.0


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["TAUU=1"], r"nothing reads the macro 'TAUU'\. Nearest: TAU\."),
        (["TAU=1", "pairwise.ipo.tua=1"], r"parameter named 'tua'(.|\n)*Nearest: tau\."),
        (["TAU=1", "pairwise.ipp.tau=1"], r"pairwise.ipp(.|\n)*Nearest: pairwise.ipo"),
        (
            ["TAU=1", "objectives.contrastive.loss=@pairwise.slik"],
            r"pairwise.slik(.|\n)*Nearest: pairwise.slic",
        ),
        (["TAU=%TAUX"], r"macro 'TAUX' has no value\. Nearest: TAU\."),
        ([], r"values are missing: give --gin.TAU=\.\.\."),
        (["TAU=[1"], "EOF"),
    ],
)
def test_a_mistake_is_answered_with_the_nearest_name(file, bindings, message):
    with pytest.raises(gin_support.ConfigError, match=message):
        gin_support.parse([f"--gin_file={file}", *(f"--gin.{b}" for b in bindings)], "")


def test_an_unknown_algorithm_is_answered_with_the_nearest_file():
    with pytest.raises(gin_support.ConfigError, match=r"Nearest: .*gin/algorithms/ipo_md\.gin"):
        gin_support.parse(["--gin_file=gin/algorithms/ipo_mdd.gin"], "")


def test_an_argument_that_is_no_binding_is_refused(capsys):
    with pytest.raises(SystemExit):
        gin_support.parse(["--steps=3"], "")
    assert "--gin.NAME=VALUE" in capsys.readouterr().err
