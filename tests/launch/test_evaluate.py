"""The real launcher on three tiny policies and a file of prompts: what it writes, and errors."""

import json

import gin
import pytest

from launch import evaluate
from tests.launch import tiny_policies

PROMPTS = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three policies, the last a copy of the first, and prompts with the author's answers."""
    where = tmp_path_factory.mktemp("evaluate")
    with (where / "test.jsonl").open("w") as file:
        for i in range(PROMPTS):
            row = {"prompt": f"Text number {i} says little.", "summary": f"Return number {i}."}
            file.write(json.dumps(row) + "\n")
    tiny_policies.write(where, {"sft": 0, "ipo_md": 1, "copy": 0})
    yield where
    gin.clear_config()


@pytest.fixture
def arguments(folder, monkeypatch):
    monkeypatch.setenv("PO_JAX_JSONL_DIR", str(folder))
    policies = {name: str(folder / name) for name in ("sft", "ipo_md", "copy")}
    return [
        f"--gin_file={folder / 'model.gin'}",
        "--gin_file=gin/runs/evaluate.gin",
        "--gin.MIXTURE_OR_TASK_NAME='jsonl_prompts'",
        "--gin.MIXTURE_OR_TASK_MODULE='tasks.jsonl'",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 5}",
        f"--gin.POLICIES={policies}",
        f"--gin.OUTPUT_DIR='{folder / 'report'}'",
        "--gin.BATCH_SIZE=8",
    ]


def test_writes_the_report_in_all_its_forms(arguments, folder, capsys):
    assert evaluate.main([*arguments, "--gin.TITLE='Tiny policies'"]) == 0
    written = {path.name for path in (folder / "report").iterdir()}
    figures = {"win_rate_matrix", "win_rates_over_reference", "win_rate_against_kl"}
    assert written == {f"{name}.png" for name in figures} | {
        "config.gin",
        "report.html",
        "report.json",
    }
    report = json.loads((folder / "report" / "report.json").read_text())
    rate = report["win_rate"]["ipo_md"]["sft"]
    assert rate["n"] == PROMPTS
    assert 0 <= rate["low"] <= rate["mean"] <= rate["high"] <= 1
    assert report["kl"]["sft"]["mean"] == report["kl"]["copy"]["mean"] == 0.0
    assert report["kl"]["ipo_md"]["mean"] > 1.0
    assert set(report["rouge"]) == {"sft", "ipo_md", "copy"}
    # Equal policies still draw independent completions.
    completions = [example["completions"] for example in report["examples"]]
    assert all(drawn["sft"] != drawn["copy"] for drawn in completions)
    assert "jsonl_prompts" in report["config"]["gin"]
    assert "<h1>Tiny policies</h1>" in (folder / "report" / "report.html").read_text()
    assert "ipo_md  preferred to sft: 0." in capsys.readouterr().out
    assert evaluate.main(arguments) == 1
    assert "report.json, got an earlier result: give --overwrite" in capsys.readouterr().err


def test_kl_is_the_policys_own_where_sampling_is_changed(arguments, folder):
    greedy = [*arguments, "--gin.sampling.Strategy.temperature=0.0", "--gin.MAX_PROMPTS=8"]
    assert evaluate.main([*greedy, "--overwrite"]) == 0
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["prompts"] == 8
    drawn = [example["completions"] for example in report["examples"]]
    assert all(completions["sft"] == completions["copy"] for completions in drawn)
    # Greedy completions of a policy are not where its KL is measured: these vary.
    assert report["kl"]["ipo_md"]["standard_error"] > 0.0


def test_a_trained_preference_model_judges(arguments, folder):
    judge = [
        "--gin.JUDGE=@judges.trained_judge",
        f"--gin.JUDGE_CHECKPOINT_PATH={folder / 'ipo_md'}",
    ]
    assert evaluate.main([*arguments, *judge, "--overwrite"]) == 0
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["judge"]["name"] == "a trained preference model"
    assert report["judge"]["position_bias"] is None  # it reads both orders itself
    assert report["win_rate"]["ipo_md"]["sft"]["ties"] == 0.0


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("--gin.OUTPUT_DIR=model.gin/report", "got the file"),
        ("--gin.REFERENCE='mu'", "the reference 'mu' among them, got ['sft', 'ipo_md', 'copy']"),
        ("--gin.POLICIES={'sft': 'nowhere', 'b': 'nowhere'}", "no such path"),
        ("--gin.SPLIT='dev'", "expected a split of jsonl_prompts in"),
        ("--gin.BATCH_SIZE=3", "multiple of 8"),
        ("--gin.config.T5Config.emb_dim=9", "expected"),
        ("--gin.MAX_PROMPT=3", "Nearest: MAX_PROMPTS"),
    ],
)
def test_mistakes_are_named(arguments, folder, binding, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert evaluate.main([*arguments, binding, "--overwrite"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
