"""What is answered before anything is imported: help, version, usage."""

from importlib import metadata
import subprocess
import sys

import pytest

from launch import command_line


def test_help_lists_the_settings_of_the_files_given(tmp_path, capsys):
    file = tmp_path / "mine.gin"
    file.write_text("TAU = %gin.REQUIRED  # of the regularisation\nSTEPS = 3\nx.y = %TAU\n")
    with pytest.raises(SystemExit, match="0"):
        command_line.read([f"--gin_file={file}", "--gin.STEPS=4", "--help"], "Does things.")
    text = capsys.readouterr().out
    assert "Does things." in text and "needs no quotes" in text
    assert "  TAU    must be given  # of the regularisation\n  STEPS  4\n" in text


def test_help_lists_the_settings_of_the_commands_own_runs(capsys):
    with pytest.raises(SystemExit, match="0"):
        command_line.read(["-h"], "", runs=["gin/runs/play.gin"])
    assert "OUTPUT_DIR" in capsys.readouterr().out


def test_help_needs_no_option_that_a_command_requires(capsys):
    def options(parser):
        parser.add_argument("--topology", required=True, help="of the chips")

    with pytest.raises(SystemExit, match="0"):
        command_line.read(["--help", "--gin.STEPS=4"], "", ["gin/runs/play.gin"], options)
    text = capsys.readouterr().out
    assert "of the chips" in text and "OUTPUT_DIR" in text and "  STEPS " in text
    with pytest.raises(SystemExit, match="2"):
        command_line.read(["--gin_file=x.gin"], "", options=options)
    assert "--topology" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        command_line.read(["--version"], "")
    assert capsys.readouterr().out.split() == ["po_jax", metadata.version("po_jax")]


def test_without_arguments_the_usage_is_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        command_line.read([], "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "--gin_file=FILE" in lines[0]


@pytest.mark.parametrize("argument", ["--steps=3", "--gin.TAU", "file.gin", "--gin_fil=x"])
def test_an_argument_that_is_no_binding_is_refused(argument, capsys):
    with pytest.raises(SystemExit, match="2"):
        command_line.read(["--gin_file=x", argument], "")
    assert "--gin.NAME=VALUE" in capsys.readouterr().err


def test_bindings_without_a_file_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        command_line.read(["--gin.TAU=1"], "")
    assert "expected --gin_file" in capsys.readouterr().err


def test_a_program_has_its_own_arguments():
    arguments = command_line.read(
        ["--prompt", "a", "--gin_file", "f", "--gin_file=g", "--gin_bindings=A=1", "--gin.B=2"],
        "",
        options=lambda parser: parser.add_argument("--prompt"),
    )
    assert arguments.prompt == "a"
    assert arguments.files == ["f", "g"] and arguments.bindings == ["A=1", "B=2"]


def test_nothing_heavy_is_imported():
    code = "import sys, launch.gin_support; print({'jax', 'tensorflow', 'numpy'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
