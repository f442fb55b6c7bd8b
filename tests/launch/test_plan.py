"""`launch.plan` on small runs: figures by hand, what it tries, and that it loads nothing."""

import dataclasses
import importlib.util
import json
import re

import jax
import pytest

from launch import plan
from launch import planned as planned_runs
from po_jax.data import seqio_source
from po_jax.judges import learned
from po_jax.planning import chips
from po_jax.training import start
from tests.launch.tiny_policies import GIN, MODEL

RUN = """
include "{model}"
include "gin/runs/{run}.gin"
{algorithm}
MIXTURE_OR_TASK_MODULE = "tasks.docstrings"
MIXTURE_OR_TASK_NAME = "docstrings_{task}"
TASK_FEATURE_LENGTHS = {{"inputs": 12, "targets": 5}}
MODEL_DIR = "nowhere"
INITIAL_CHECKPOINT_PATH = "nowhere"
TRAIN_STEPS = 50
BATCH_SIZE = 16
"""
PARAMETERS = sum(
    leaf.size for leaf in jax.tree.leaves(jax.eval_shape(MODEL.init, jax.random.key(0)))
)


def write(folder, run, task, algorithm=""):
    (folder / "model.gin").write_text(GIN)
    if algorithm:
        algorithm = f'include "gin/algorithms/{algorithm}.gin"'
    text = RUN.format(model=folder / "model.gin", run=run, task=task, algorithm=algorithm)
    if run == "online":
        text += 'JUDGE_CHECKPOINT_PATH = "nowhere"\n'
    (folder / "run.gin").write_text(text)
    return str(folder / "run.gin")


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a plan reads no data and no parameters")

    for module, name in (
        (seqio_source, "stream"),
        (start, "open_checkpoint"),
        (learned, "load_parameters"),
    ):
        monkeypatch.setattr(module, name, refuse)


def planned(tmp_path, *arguments):
    """The plans that a command line writes."""
    output = tmp_path / "plan.jsonl"
    assert plan.main([*arguments, f"--output={output}", "--overwrite"]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_an_online_run(tmp_path, capsys):
    run = f"--gin_file={write(tmp_path, 'online', 'prompts', 'ipo_md')}"
    (found,) = planned(tmp_path, run, "--topology=cpu:4", "--gin.NUM_PARTITIONS=2")
    assert found["mesh"] == {"data": 2, "model": 2} and found["chips"] == 4
    assert found["fits"] and found["settings"] == []
    assert list(found["programs"]) == ["sampler", "judge", "step"]
    # Half of most parameters, float32, thrice; factors of 7 and 3 stay whole.
    for name in ("parameters", "reference", "judge"):
        assert 0.5 <= found["kept"][name] / (4 * PARAMETERS) < 0.6
    assert found["tokens"] == 16 * (12 + 2 * 5)
    # Keys and values of two models: 16 prompts of 12 tokens, 32 completions of 5, 2 heads of 3;
    # and a mask of the prompts.
    caches = 2 * (2 * 4 * 2 * 3 * (16 * 12 + 32 * 5) + 4 * 16 * 12) / 4
    assert found["programs"]["sampler"]["memory"]["caches"] == pytest.approx(caches, abs=4)
    for program in found["programs"].values():
        assert program["flops"] > 0 and program["moved"] > 0
        assert program["roofline"] == max(program["seconds"].values()) > 0
        assert program["seconds"][program["bound"]] == program["roofline"]
    total = sum(program["roofline"] for program in found["programs"].values())
    assert found["step_seconds"] == pytest.approx(total)
    assert found["chip_hours"] == pytest.approx(50 * total * 4 / 3600)
    text = capsys.readouterr().out
    assert "cpu:4: 4 chips, mesh data 2 x model 2" in text
    assert "The run fits as given." in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "task", "algorithm", "programs"),
    [
        ("sft", "sft", "", ["step"]),
        ("preference_model", "comparisons", "", ["step"]),
        ("offline", "comparisons", "ipo", ["scoring", "step"]),
        ("online", "prompts", "nash_ema_pg", ["sampler", "judge", "scoring", "step"]),
    ],
)
def test_programs_of_other_runs(tmp_path, run, task, algorithm, programs):
    files = f"--gin_file={write(tmp_path, run, task, algorithm)}"
    (found,) = planned(tmp_path, files, "--topology=cpu:1")
    assert list(found["programs"]) == programs
    assert ("reference" in found["kept"]) == (len(programs) > 1)
    assert ("average" in found["kept"]) == (algorithm == "nash_ema_pg")


@pytest.mark.slow
def test_adapters_beside_their_base(tmp_path):
    run = f"--gin_file={write(tmp_path, 'online', 'prompts', 'ipo_md')}"
    adapters = ["--gin_file=gin/runs/lora.gin", "--gin.LORA_RANK=2"]
    with jax.numpy_dtype_promotion("standard"):  # optax.adamw
        (found,) = planned(tmp_path, run, *adapters, "--topology=cpu:1")
    # [8, 2] and [2, 6] beside the queries and values of three attentions, float32.
    adapter = 4 * 3 * 2 * (8 * 2 + 2 * 6)
    kept = found["kept"]
    assert kept["parameters"] == kept["reference"] == adapter
    assert 2 * adapter <= kept["optimiser"] < 2 * adapter + 100
    # In bfloat16 but for seven norms of 8, and two tables of 32 relative positions of 2 heads.
    assert kept["base"] == 2 * PARAMETERS + 2 * (7 * 8 + 2 * 32 * 2)
    assert list(found["programs"]) == ["sampler", "judge", "step"]
    assert found["programs"]["step"]["memory"]["gradients"] == adapter


@pytest.mark.slow
def test_adapters_are_tried_where_nothing_else_helps(tmp_path, monkeypatch):
    run = f"--gin_file={write(tmp_path, 'offline', 'comparisons', 'ipo')}"
    wide = ["--gin.config.T5Config.emb_dim=16", "--gin.config.T5Config.head_dim=8"]
    small_memory(monkeypatch, 4.5 * PARAMETERS)
    found = planned(tmp_path, run, *wide, "--topology=cpu:1")
    tried = [trial["settings"] for trial in found]
    assert tried == [[], ["loop.Trainer.reference_dtype='bfloat16'"], ["gin/runs/lora.gin"]]


def test_a_judge_in_python_is_no_program(tmp_path):
    run = write(tmp_path, "online", "prompts", "online_ipo")
    with open(run, "a") as file:
        file.write("from po_jax import judges\nJUDGE = @judges.RougeJudge\n")
    text = "from __gin__ import dynamic_registration\n" + (tmp_path / "run.gin").read_text()
    (tmp_path / "run.gin").write_text(text)
    (found,) = planned(tmp_path, f"--gin_file={run}", "--topology=cpu:1")
    assert list(found["programs"]) == ["sampler", "scoring", "step"]


def small_memory(monkeypatch, size):
    monkeypatch.setitem(chips.CHIPS, "cpu", dataclasses.replace(chips.CHIPS["cpu"], memory=size))


@pytest.mark.slow
def test_what_does_not_fit_is_tried_with_less(tmp_path, capsys, monkeypatch):
    run = f"--gin_file={write(tmp_path, 'sft', 'sft')}"
    resident = 4.0 * PARAMETERS
    small_memory(monkeypatch, 0.8 * resident)
    monkeypatch.setattr(planned_runs, "_MOST_TRIALS", 2)
    found = planned(tmp_path, run, "--topology=cpu:4")
    assert not found[0]["fits"] and found[0]["programs"] == {}
    assert found[1]["settings"] == ["partitioning.make_partitioner.parameter_dims=2"]
    assert found[1]["kept"]["parameters"] < found[0]["kept"]["parameters"] / 2
    text = capsys.readouterr().out
    assert "does not fit: what stays between programs alone takes" in text
    given = planned(tmp_path, run, "--topology=cpu:4", "--as_given")
    assert len(given) == 1
    small_memory(monkeypatch, 1.0)
    capsys.readouterr()
    assert not any(trial["fits"] for trial in planned(tmp_path, run, "--topology=cpu:2"))
    assert "Nothing that was tried fits." in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_takes_the_fastest_mesh_that_fits(tmp_path, capsys):
    run = f"--gin_file={write(tmp_path, 'sft', 'sft')}"
    found = planned(tmp_path, run, "--topology=cpu:4", "--sweep", "--gin.BATCH_SIZE=2")
    assert [trial["settings"] for trial in found] == [[f"NUM_PARTITIONS={n}"] for n in (1, 2, 4)]
    assert "multiple of 4" in found[0]["refused"]  # two rows for four copies
    fastest = min(found[1:], key=lambda trial: trial["step_seconds"])["settings"][0]
    assert f"The fastest that fits: --gin.{fastest}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v7:2x2"], "one of v4, v5e"),
        (["--topology=cpu:4", "--gin.BATCH_SIZE=6"], "multiple of 4 .* got 6; 4 or 8 would do"),
        (["--topology=cpu:4", "--gin.NUM_PARTITIONS=3"], "divide 4 devices, got 3"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, capfd, arguments, message):
    assert plan.main([f"--gin_file={write(tmp_path, 'sft', 'sft')}", *arguments]) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and re.search(message, last)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="make test-plan installs it")
def test_a_tpu_that_is_not_there(tmp_path):
    run = f"--gin_file={write(tmp_path, 'online', 'prompts', 'ipo_md')}"
    scan = "--gin_file=gin/models/scan.gin"
    (found,) = planned(tmp_path, run, scan, "--topology=v5e:2x2", "--gin.NUM_PARTITIONS=2")
    assert found["fits"] and found["memory"] == 16 * 2**30
    assert list(found["programs"]) == ["sampler", "judge", "step"]
    for program in found["programs"].values():
        assert program["collectives"]["all-reduce"]["calls"] > 0
        assert program["flops"] > 0 and program["moved"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not chips._has_plugin("xla_cuda13"), reason="make test-plan installs it")
def test_a_gpu_that_is_not_there(tmp_path):
    run = f"--gin_file={write(tmp_path, 'sft', 'sft')}"
    (found,) = planned(tmp_path, run, "--topology=h100:4", "--gin.NUM_PARTITIONS=2")
    assert found["fits"] and found["programs"]["step"]["collectives"]
