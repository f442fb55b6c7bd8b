"""Studies: what commands they come to, how they go on, and a study of tiny runs by the launcher."""

import json
import os
from pathlib import Path
import re
import shlex
import signal
import subprocess
import sys

import pytest

from launch import GIN_FOLDER, study
from launch.stages import Stage, Study, label
from tests.launch import tiny_policies

STUDIES = sorted(path.stem for path in (GIN_FOLDER / "studies").glob("*.gin"))


def stage(program="train", arguments=("model.gin",), **options):
    return Stage(program=program, arguments=list(arguments), **options)


def of(stages, folder="runs/x", **options):
    return Study(folder=folder, stages=stages, title="T", start="runs/sft", **options)


def finish(known, name, reports=None):
    """Notes every cell of a stage as done, with a report each."""
    for cell in known.cells(name):
        note = known.note(cell)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"state": "done", "fingerprint": "x", "seconds": 1.0}))
        if reports is not None:
            Path(cell.output).mkdir(parents=True, exist_ok=True)
            Path(cell.output, "report.json").write_text(json.dumps(reports(cell)))


def test_a_stage_has_a_command_for_each_combination():
    axes = {"method": {"IPO": ["ipo.gin", "A=1"], "DPO": ["dpo.gin"]}, "TAU": [0.1, 3]}
    training = stage(
        arguments=["model.gin", "$options", "policy.gin", "START=$start/$kind"], axes=axes
    )
    cells = of({"policies": training}, given={"kind": "best"}).cells("policies")
    assert [cell.name for cell in cells] == [
        "policies: IPO,tau=0.1",
        "policies: IPO,tau=3",
        "policies: DPO,tau=0.1",
        "policies: DPO,tau=3",
    ]
    assert cells[0].arguments == (
        "--gin_file=model.gin",
        "--gin_file=ipo.gin",
        "--gin.A=1",
        "--gin.TAU=0.1",
        "--gin_file=policy.gin",
        "--gin.START=runs/sft/best",
        "--gin.MODEL_DIR=runs/x/policies/IPO,tau=0.1",
    )
    assert cells[3].options == {"method": "DPO", "TAU": "3"}


def test_an_evaluation_compares_the_policies_that_agree_with_it():
    known = of(
        {
            "policies": stage(axes={"method": {"a": [], "b": []}, "SEED": [1, 2]}),
            "test": stage(
                "evaluate", axes={"SEED": {"1": [], "2": []}}, policies=["policies"], along=True
            ),
        }
    )
    first, second = known.cells("test")
    paths = "{'start': 'runs/sft', 'a': 'runs/x/policies/a,seed=%d/checkpoint_*', "
    paths += "'b': 'runs/x/policies/b,seed=%d/checkpoint_*'}"
    assert f"--gin.POLICIES={paths % (1, 1)}" in first.arguments
    assert f"--gin.POLICIES={paths % (2, 2)}" in second.arguments
    assert first.policies == {x: {"method": x, "SEED": "1"} for x in "ab"}
    trained = known.cells("policies")
    assert [first.uses(cell) for cell in trained] == [True, False, True, False]


def test_a_name_that_begins_like_another_is_another():
    known = of({"a": stage(axes={"X": [1, 10]}), "b": stage(arguments=["FROM=$folder/a/x=1"])})
    one, ten = known.cells("a")
    (user,) = known.cells("b")
    assert user.uses(one) and not user.uses(ten)


def test_the_option_that_won_most_often_is_chosen(tmp_path):
    rates = {("a", "0.1"): 0.6, ("a", "0.2"): 0.7, ("b", "0.1"): 0.8, ("b", "0.2"): 0.4}
    known = of(
        {
            "sweep": stage(axes={"method": {"a": ["a.gin"], "b": ["b.gin"]}, "TAU": [0.1, 0.2]}),
            "validation": stage("evaluate", policies=["sweep"]),
            "methods": stage(
                axes={"method": {"a": ["a.gin"], "b": ["b.gin"]}, "SEED": [5, 7]},
                chosen={"TAU": "validation"},
            ),
            "test": stage("evaluate", policies=["methods"]),
        },
        folder=str(tmp_path),
    )
    assert known.cells("methods") is None and known.cells("test") is None
    assert known.count("methods") == 4
    assert "# methods: 4 more, when" in study.commands(known)

    def report(cell):
        return {
            "win_rate": {
                policy: {"start": {"mean": rates[options["method"], options["TAU"]]}}
                for policy, options in cell.policies.items()
            }
        }

    finish(known, "validation", report)
    chosen = known.cells("methods")
    assert [cell.options["TAU"] for cell in chosen] == ["0.2", "0.2", "0.1", "0.1"]
    assert "--gin.TAU=0.2" in chosen[0].arguments and "--gin.TAU=0.1" in chosen[2].arguments
    assert len(known.cells("test")[0].policies) == 4


def test_a_changed_command_changes_all_that_uses_it():
    def fingerprint(argument):
        known = of({"a": stage(arguments=[argument]), "b": stage(arguments=["FROM=$folder/a"])})
        (first,), (user,) = known.cells("a"), known.cells("b")
        return user.fingerprint([first.fingerprint([])])

    assert fingerprint("X=1") == fingerprint("X=1") != fingerprint("X=2")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: stage("fly"), "Stage.program: expected one of .*'fly'"),
        (lambda: stage(policies=["x"]), "of the program 'evaluate' alone"),
        (lambda: stage("label"), "Stage.output: expected a path"),
        (lambda: stage(axes={"TAU": []}), "Stage.axes: expected options of 'TAU'"),
        (lambda: of({"a": stage("evaluate", policies=["b"])}), "stage 'a': expected earlier"),
        (lambda: of({"a": stage(chosen={"TAU": "a"})}), "stage 'a': expected earlier"),
        (lambda: of({"a": stage(arguments=["X=$y"])}).cells("a"), r"\$folder, .*'X=\$y'"),
        (lambda: of({"a": stage(axes={"X": ["y z", "y_z"]})}).cells("a"), "got a/y_z twice"),
    ],
)
def test_mistakes_are_told(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_values_are_as_on_the_command_line():
    cells = of({"a": stage(axes={"X": ["@optax.lion()", 1e-4, None]})}).cells("a")
    assert [cell.arguments[1] for cell in cells] == [
        "--gin.X=@optax.lion()",
        "--gin.X=0.0001",
        "--gin.X=None",
    ]


def test_a_cell_that_still_runs_is_not_begun_again(tmp_path):
    known = of({"a": stage()}, folder=str(tmp_path))
    (cell,) = known.cells("a")
    command = [sys.executable, "-c", "print(flush=True); input()", cell.output]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as process:
        process.stdout.readline()  # It has begun.
        note = known.note(cell)
        note.parent.mkdir()
        note.write_text(json.dumps({"state": "running", "process": process.pid}))
        with pytest.raises(ValueError, match=f"a: expected it to have ended.*{process.pid}"):
            study.Running(known).run()
        process.communicate(b"\n")


def test_labels_are_parts_of_a_path():
    assert label({"A": "a/b c", "TAU": "0.5", "B": "None"}) == "a_b_c,tau=0.5,b=None"


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "study"])
def test_the_commands_of_every_study_are_taken_by_their_programs(name, capsys):
    """Every command that is known at the beginning is read by gin, but not run."""
    from launch import gin_check, gin_files

    given = [f"--gin.STUDY_DIR=runs/{name}"]
    given += ["--gin.START=runs/flan", "--gin.DATA=runs/data"] * (name == "tldr")
    assert study.main([f"--gin_file=gin/studies/{name}.gin", *given, "--list"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert len(lines) > 5
    kinds = {}
    for line in lines:
        words = [word for word in shlex.split(line) if word.startswith("--gin")]
        files = tuple(word for word in words if word.startswith("--gin_file"))
        kinds.setdefault(files, words)
    for words in kinds.values():
        files = [word.partition("=")[2] for word in words if word.startswith("--gin_file")]
        bindings = [word.removeprefix("--gin.") for word in words if word.startswith("--gin.")]
        gin_check.check(gin_files.read(files, bindings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A start, comparisons and prompts, and a study of two runs and one that cannot begin."""
    where = tmp_path_factory.mktemp("study")
    tiny_policies.write(where, {"sft": 0})
    for split, count in (("train", 16), ("test", 5)):
        with (where / f"{split}.jsonl").open("w") as file:
            for i in range(count):
                row = {"prompt": f"Text {i} says little.", "chosen": f"Yes {i}", "rejected": "No"}
                file.write(json.dumps({**row, "summary": f"Number {i}."}) + "\n")
    (where / "task.gin").write_text(
        "MIXTURE_OR_TASK_MODULE = 'tasks.jsonl'\n"
        "TASK_FEATURE_LENGTHS = {'inputs': 16, 'targets': 5}\nBATCH_SIZE = 8\n"
    )
    (where / "study.gin").write_text(STUDY)
    return where


STUDY = """
from __gin__ import dynamic_registration
from launch import stages
from po_jax.studies import plots

stages.Study:
  folder = %gin.REQUIRED
  title = "A study"
  text = "Of two cells.\\n\\nAnd of one that cannot be."
  start = "sft"
  stages = {"policies": @policies/stages.Stage(), "along": @along/stages.Stage()}
  figures = {"Win rate": @plots.Curves(), "Matrix": @plots.Matrix()}
policies/stages.Stage:
  program = "train"
  arguments = [
      "model.gin", "gin/runs/offline.gin", "gin/algorithms/ipo.gin", "task.gin",
      "MIXTURE_OR_TASK_NAME=jsonl_comparisons", "INITIAL_CHECKPOINT_PATH=$start",
      "TRAIN_STEPS=4", "SAVE_PERIOD=2", "EVAL_PERIOD=100", "EVAL_SPLIT=test",
  ]
  axes = {"TAU": [0.5, 2.0, -1.0]}
along/stages.Stage:
  program = "evaluate"
  arguments = [
      "model.gin", "gin/runs/evaluate.gin", "task.gin", "MIXTURE_OR_TASK_NAME=jsonl_prompts",
  ]
  policies = ["policies"]
  along = True
plots.Curves:
  stage = "along"
  x = "step"
  y = "win_rate"
  colour = "TAU"
plots.Matrix.stage = "along"
"""


def launch(folder, name, *words):
    environment = {
        **os.environ,
        "PO_JAX_JSONL_DIR": str(folder),
        "PYTHONPATH": str(GIN_FOLDER.parent),
    }
    command = [sys.executable, "-m", "launch.study", "--gin_file=study.gin"]
    command += [f"--gin.stages.Study.folder={name}", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_to_the_same_page(folder):
    whole = launch(folder, "whole")
    out, shown = whole.communicate()
    assert whole.returncode == 1 and out == "whole/study.html\n"
    assert "1 of 4 cells are not done, 'policies: tau=-1.0' first: failed: " in shown
    assert re.search(r"2 of 4  policies: tau=2.0  [\d:]+ left", shown)
    page = (folder / "whole" / "study.html").read_text()
    assert "3 of 4 cells are done" in page and "expected tau of 0 or more, got -1.0" in page
    assert page.count("data:image/svg+xml") == 2
    assert "And of one that cannot be.</p>" in page
    found = json.loads((folder / "whole" / "study.json").read_text())
    points = [(x["options"]["TAU"], x["step"]) for x in found["points"]["along"]]
    assert points == [("0.5", 2), ("0.5", 4), ("2.0", 2), ("2.0", 4)]
    (report,) = re.findall('href="([^"]*)"', page)
    assert (folder / "whole" / report).is_file()

    killed = launch(folder, "killed")
    for line in killed.stderr:  # the first is done and the second has begun
        if "2 of 4" in line:
            break
    killed.send_signal(signal.SIGTERM)
    killed.communicate()
    assert killed.returncode == 130
    assert "not begun" in (folder / "killed" / "study.html").read_text()
    again = launch(folder, "killed")
    _, shown = again.communicate()
    assert again.returncode == 1 and "1 of 4" not in shown.replace("1 of 4 cells", "")
    resumed = (folder / "killed" / "study.html").read_text()
    assert resumed.replace("killed", "whole") == page

    listed, _ = launch(folder, "whole", "--list").communicate()
    commands = [line for line in listed.splitlines() if not line.startswith("#")]
    notes = {json.loads(p.read_text())["command"] for p in folder.glob("whole/cells/*/*.json")}
    notes |= {json.loads(p.read_text())["command"] for p in folder.glob("whole/cells/*.json")}
    assert set(commands) == notes
