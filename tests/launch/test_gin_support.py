"""Commands run by gin: what gin is given, and how what goes wrong is told."""

import os

import gin
import jax.numpy as jnp
import pytest

from launch import gin_support
from po_jax.checkpoints.manager import CheckpointError
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
    gin_support.configure([file], ["TAU = 1", "objectives.contrastive.loss = @pairwise.slic"])
    assert "@pairwise.slic" in gin.config_str()


def test_an_included_file_has_its_own_names(file, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (tmp_path / "outer.gin").write_text(
        "from __gin__ import dynamic_registration\nimport json as pairwise\ninclude 'mine.gin'\n"
        "TAU = 2.0\npairwise.dumps.indent = 2\n"
    )
    files = ["outer.gin", "mine.gin", "outer.gin"]
    gin_support.configure(files, [], [str(tmp_path)])
    assert gin.query_parameter("TAU/macro.value") == 2.0
    assert gin.get_bindings(pairwise.dpo) == {"tau": 1.0}


def test_a_configuration_replaces_the_one_before(file):
    gin_support.configure([file], ["TAU=1", "pairwise.slic.tau=2"])
    gin_support.configure([file], ["TAU=1"])
    assert "slic" not in gin.config_str()


def test_a_call_that_lacks_arguments_is_refused_before_it_is_made(file):
    gin_support.configure([file], ["TAU=1", "pairwise.dpo.tau=@pairwise.ipo()"])
    given = {"margin": jnp.ones(2), "preference": jnp.ones(2)}
    with pytest.raises(gin_support.ConfigError, match=r"^nothing gives pairwise\.slic its tau: "):
        gin_support.call(pairwise.slic, **given)
    with pytest.raises(gin_support.ConfigError, match=r"pairwise\.ipo its margin, preference: "):
        gin_support.call(pairwise.dpo, **given)
    assert gin_support.call(pairwise.ipo, **given).tolist() == [0.25] * 2


def test_a_call_sees_the_scopes_of_references(file, tmp_path, monkeypatch):
    (tmp_path / "my_schedule.py").write_text("def half_of(x): return x / 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    given = {"margin": jnp.ones(2), "preference": jnp.ones(2)}
    bindings = ["import my_schedule", "a/my_schedule.half_of.x=1.0"]
    gin_support.configure([file], [*bindings, "TAU=@a/b/my_schedule.half_of()"])
    assert gin_support.call(pairwise.ipo, **given).tolist() == [0.0] * 2
    gin_support.configure([file], [*bindings, "TAU=@b/my_schedule.half_of()"])
    with pytest.raises(gin_support.ConfigError, match=r"my_schedule\.half_of its x: "):
        gin_support.call(pairwise.ipo, **given)


def run(program, *arguments):
    return gin_support.run(program, arguments, "Does things.")


def test_a_program_keeps_what_it_compiles(file, monkeypatch, tmp_path):
    """In the user's own place, unless another is named: these are read when JAX is imported."""
    place, least = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = []

    def program(_):
        found.append((os.environ[place], os.environ[least]))

    monkeypatch.delenv(place)
    monkeypatch.delenv(least, raising=False)
    assert run(program, f"--gin_file={file}", "--gin.TAU=1") == 0
    monkeypatch.setenv(place, "mine")
    monkeypatch.setenv(least, "3")
    assert run(program, f"--gin_file={file}", "--gin.TAU=1") == 0
    assert found == [(str(tmp_path / "po_jax" / "compiled"), "0.1"), ("mine", "3")]


def test_a_program_gets_its_arguments(file):
    seen = []
    assert run(seen.append, f"--gin_file={file}", "--gin.TAU=1") == 0
    assert seen[0].bindings == ["TAU=1"]


def test_a_mistake_is_one_line(file, capsys):
    assert run(pytest.fail, f"--gin_file={file}", "--gin.TAU='1'") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"error: --gin.TAU='1': expected float | int, got '1' (for pairwise.ipo.tau, {file}:8)"
    ]


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("expected a, got b"), 1, "error: expected a, got b\n"),
        (CheckpointError("no checkpoint"), 1, "error: no checkpoint\n"),
        (
            PermissionError(13, "Permission denied", "x"),
            1,
            "error: [Errno 13] Permission denied: 'x'\n",
        ),
        (ValueError("first\nsecond"), 1, "error: first (--debug shows more)\n"),
        (ValueError(), 1, "error: ValueError\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_goes_wrong_outside_is_told_in_a_line(error, status, told, capsys):
    def program():
        raise error

    assert gin_support.exit_status(program) == status
    assert capsys.readouterr().err == told


def test_debug_shows_the_traceback(capsys):
    def program():
        raise ValueError("first\nsecond")

    assert gin_support.exit_status(program, debug=True) == 1
    text = capsys.readouterr().err
    assert text.startswith("Traceback") and text.endswith("second\nerror: first\n")


def test_a_fault_of_the_program_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        gin_support.exit_status(lambda: print(1 / 0))


def test_what_tensorflow_says_when_imported_is_not_shown(file, tmp_path, monkeypatch, capfd):
    (tmp_path / "noisy.py").write_text(
        "import os\nos.write(2, b'WARNING: All log messages before absl::InitializeLog() is "
        "called are written to STDERR\\nI0000 00:00:1.2 1 port.cc:153] news\\nW0000 kept\\n')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert (
        run(
            lambda _: os.write(2, b"I0000 late\n"),
            f"--gin_file={file}",
            "--gin.TAU=1",
            "--gin_bindings=import noisy",
        )
        == 0
    )
    assert capfd.readouterr().err == "W0000 kept\nI0000 late\n"
