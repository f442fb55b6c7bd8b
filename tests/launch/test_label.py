"""The real launcher: every pair of a tiny policy's completions is judged once, by any callable."""

from itertools import combinations
import json
import os
import tempfile

import gin
import pytest

from launch import gin_support, label
from po_jax import judges
from tests.launch import tiny_policies

PROMPTS = 11
JUDGE = """
from __gin__ import dynamic_registration
from po_jax import judges
from tests.launch import test_label

JUDGE = @judges.CallableJudge
judges.CallableJudge.judge = @test_label.shorter
"""


def shorter(prompt, first, second):
    os.chdir(tempfile.gettempdir())  # what a judge does to the process changes no path
    return len(second) / max(len(first) + len(second), 1)


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("PO_JAX_JSONL_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Text {i}.", "summary": "Unknown to the judge."} for i in range(PROMPTS)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "judge.gin").write_text(JUDGE)
    tiny_policies.write(tmp_path, {"sft": 0})
    yield [
        f"--gin_file={tmp_path / 'model.gin'}",
        "--gin_file=gin/runs/label.gin",
        f"--gin_file={tmp_path / 'judge.gin'}",
        "--gin.MIXTURE_OR_TASK_NAME='jsonl_prompts'",
        "--gin.MIXTURE_OR_TASK_MODULE='tasks.jsonl'",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 5}",
        f"--gin.CHECKPOINT_PATH='{tmp_path / 'sft'}'",
        "--gin.OUTPUT=out/train.jsonl",
        "--gin.BATCH_SIZE=8",
    ]
    gin.clear_config()


def test_every_pair_is_judged_once(arguments, tmp_path, capsys):
    assert label.main([*arguments, "--gin.SAMPLES=3"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").open()]
    said = capsys.readouterr().out
    assert f"wrote {len(rows)} comparisons" in said
    # Both orders of three pairs; rows that fill up the last batch are no questions.
    assert f"the judge shorter: {PROMPTS * 3 * 2} questions: " in said and "(100.0%) answ" in said
    complete = 0
    for i in range(PROMPTS):
        own = [row for row in rows if row["prompt"] == f"Text {i}."]
        for row in own:
            expected = shorter("", row["chosen"], row["rejected"])
            assert 0.5 < row["preference"] == pytest.approx(expected)
        pairs = [{row["chosen"], row["rejected"]} for row in own]
        texts = set().union(*pairs)
        # Where no two lengths tie, all three pairs are there.
        if len({len(text) for text in texts}) == 3:
            complete += 1
            assert all(set(pair) in pairs for pair in combinations(texts, 2)) and len(pairs) == 3
    assert complete >= 3


def test_a_file_that_is_there_stays(arguments, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.jsonl").write_text("labelled at great cost")
    assert label.main(arguments) == 1
    assert "got an earlier result: give --overwrite to replace it" in capsys.readouterr().err
    assert label.main([*arguments, "--gin.OUTPUT=5"]) == 1
    assert "--gin.OUTPUT=5: expected str | os.PathLike, got 5" in capsys.readouterr().err
    assert (tmp_path / "out" / "train.jsonl").read_text() == "labelled at great cost"


def test_one_completion_makes_no_pair(arguments, capsys):
    assert label.main([*arguments, "--gin.SAMPLES=1"]) == 1
    assert "at least 2 samples of each prompt, got 1" in capsys.readouterr().err


def test_a_service_is_a_judge_by_its_settings(tmp_path, arguments):
    (tmp_path / "service.gin").write_text("""
from __gin__ import dynamic_registration
from po_jax import judges

JUDGE = @judges.CallableJudge
judges.CallableJudge.judge = @judges.Endpoint()
judges.Endpoint.url = "http://localhost/v1/chat/completions"
judges.Endpoint.model = "a-model"
""")
    files = [
        text.removeprefix("--gin_file=") for text in arguments if text.startswith("--gin_file=")
    ]
    files[-1] = str(tmp_path / "service.gin")
    given = [text.removeprefix("--gin.") for text in arguments if text.startswith("--gin.")]
    cache = tmp_path / "answers.sqlite"
    gin_support.configure(files, [*given, f"JUDGE_CACHE={cache}", "JUDGE_THREADS=3"])
    judge = gin_support.call(judges.CallableJudge)
    assert judge.name.startswith("a-model (question ") and not judge.antisymmetric
    assert cache.is_file()
