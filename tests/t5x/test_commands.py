"""T5X's commands as they are started: killed and started again, beside ours, and with mistakes."""

import json
import signal
import subprocess
import time

import pytest

pytest.importorskip(
    "t5x.train", reason="needs T5X, which no package index holds", exc_type=ImportError
)

from tests.t5x import commands, harness  # noqa: E402

TRAIN = {
    "BATCH_SIZE": "8",
    "LOG_PERIOD": "1",
    "SAVE_PERIOD": "2",
    "TRAIN_STEPS": "10",
    "utils__SaveCheckpointConfig__keep": "None",
    "LEARNING_RATE": "1e-3",
}
OFFLINE = (["gin/t5x/offline.gin", "gin/algorithms/ipo.gin"], "jsonl_comparisons", {})
ONLINE = (
    ["gin/t5x/online.gin", "gin/algorithms/ipo_md.gin"],
    "jsonl_prompts",
    {"JUDGE": "@judges.RougeJudge", "TEXTS": "('answers',)"},
)


@pytest.fixture
def data(tmp_path):
    commands.write_data(tmp_path / "data")
    return tmp_path / "data"


def training(run, folder, start, **bindings):
    files, task, more = run
    return commands.command(
        "t5x.train",
        files,
        MIXTURE_OR_TASK_NAME=repr(task),
        INITIAL_CHECKPOINT_PATH=repr(start),
        MODEL_DIR=repr(str(folder)),
        **{**TRAIN, **more, **bindings},
    )


@pytest.mark.parametrize("run", [OFFLINE, ONLINE], ids=["ipo", "ipo_md"])
def test_killed_after_step_six_and_started_again(run, tmp_path, data):
    start = commands.write_policy(tmp_path / "start")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = commands.run(training(run, whole, start), data)
    assert done.returncode == 0, done.stderr[-3000:]

    process = subprocess.Popen(
        training(run, parts, start),
        cwd=tmp_path,
        env=commands.environment(data),
        stderr=subprocess.DEVNULL,
    )
    while not (parts / "checkpoint_6").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (parts / "checkpoint_10").exists()

    done = commands.run(training(run, parts, start), data)
    assert done.returncode == 0, done.stderr[-3000:]
    begun, *ended = (
        commands.leaves(path) for path in (start, parts / "checkpoint_10", whole / "checkpoint_10")
    )
    assert harness.difference(*ended) <= 1e-6
    assert harness.difference(ended[0], begun) > 1e-3  # it has learned
    one, other = harness.events(parts / "train"), harness.events(whole / "train")
    for step in range(1, 11):
        for metric in ("loss", "margin", "nll", "gradient_norm"):
            expected = pytest.approx(other[step][metric], rel=1e-6, abs=1e-6)
            assert one[step][metric] == expected, (step, metric)


def test_greedy_texts_are_those_of_our_command(tmp_path, data):
    start = commands.write_policy(tmp_path / "start", scale=3.0) + "/checkpoint_0"
    named = {"MIXTURE_OR_TASK_NAME": "'jsonl_prompts'", "CHECKPOINT_PATH": repr(start)}
    infer = commands.command(
        "t5x.infer", ["gin/t5x/infer.gin"], INFER_OUTPUT_DIR=repr(str(tmp_path / "by_t5x")), **named
    )
    done = commands.run(infer, data)
    assert done.returncode == 0, done.stderr[-3000:]
    output = tmp_path / "by_us.jsonl"
    sample = commands.command("launch.sample", ["gin/runs/sample.gin"], TEMPERATURE="0.0", **named)
    done = commands.run([*sample, f"--output={output}"], data)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "by_t5x").glob("*-predict.jsonl-?????-of-?????")
    theirs, ours = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (file, output)
    )
    texts = [row["completion"] for row in ours]
    assert len(set(texts)) == 5 and all(texts)
    assert [row["prediction"] for row in theirs] == texts
    assert [row["inputs"]["inputs_pretokenized"] for row in theirs] == [r["prompt"] for r in ours]


def test_a_mistake_ends_the_command_before_data_are_read(tmp_path, data):
    start = commands.write_policy(tmp_path / "start")
    (data / "train.jsonl").unlink()
    done = commands.run(training(OFFLINE, tmp_path / "run", start, BETAS="(0.0, 0.0)"), data)
    assert done.returncode != 0
    assert "ValueError: offline.gin takes the data set's completions, but" in done.stderr
