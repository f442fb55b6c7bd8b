"""Every file of gin/algorithms/ trains through the real launcher, and its mistakes are told."""

import json
import re

import gin
import jax
import numpy as np
import pytest

from launch import GIN_FOLDER, train
from po_jax.checkpoints.load import open_checkpoint
from tests.launch import tiny_policies

ALGORITHMS = sorted(path.stem for path in (GIN_FOLDER / "algorithms").glob("*.gin"))
STEPS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Comparisons in TRL's format, a policy to start from and a judge nobody trained."""
    folder = tmp_path_factory.mktemp("algorithms")
    tiny_policies.write(folder, {"sft": 0, "judge": 1})
    for split, count in (("train", 11), ("validation", 3)):
        lines = [
            {
                "prompt": f"Add {n} numbers and return their sum.",
                "chosen": "Sum of numbers.",
                "rejected": f"Returns {n}.",
            }
            for n in range(count)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def environment(folder, monkeypatch):
    monkeypatch.setenv("PO_JAX_JSONL_DIR", str(folder))
    yield
    gin.clear_config()


def command(folder, run, algorithm, model_dir, *more):
    task = "jsonl_prompts" if run == "online" else "jsonl_comparisons"
    settings = {
        "MODEL_DIR": str(model_dir),
        "TRAIN_STEPS": STEPS,
        "INITIAL_CHECKPOINT_PATH": str(folder / "sft"),
        "MIXTURE_OR_TASK_NAME": task,
        "MIXTURE_OR_TASK_MODULE": "tasks.jsonl",
        "TASK_FEATURE_LENGTHS": {"inputs": 16, "targets": 6},
        "BATCH_SIZE": 8,
        "EVAL_BATCHES": 1,
        "LOG_PERIOD": 1,
    }
    if run == "online":
        settings["JUDGE_CHECKPOINT_PATH"] = str(folder / "judge")
    return [
        f"--gin_file={folder}/model.gin",
        f"--gin_file=gin/runs/{run}.gin",
        f"--gin_file=gin/algorithms/{algorithm}.gin",
        *(f"--gin.{name}={value!r}" for name, value in settings.items()),
        *more,
    ]


@pytest.mark.parametrize(
    "algorithm",
    [
        name if name in ("ipo", "ipo_md", "rlhf") else pytest.param(name, marks=pytest.mark.slow)
        for name in ALGORITHMS
    ],
)
def test_the_algorithm_trains(algorithm, folder, tmp_path):
    online = "BETAS = None" not in (GIN_FOLDER / "algorithms" / f"{algorithm}.gin").read_text()
    run = "online" if online else "offline"
    assert train.main(command(folder, run, algorithm, tmp_path)) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    *steps, start, held_out = sorted(lines, key=lambda line: line["split"] == "held_out")
    assert [line["step"] for line in steps] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in steps)
    assert start["step"] == 0 and start["kl"] == 0.0 and np.isfinite(held_out["kl"])
    assert ("win_rate" in held_out) == online
    before = open_checkpoint(folder / "sft").parameters
    after = open_checkpoint(tmp_path).parameters
    assert before.keys() == after.keys()
    assert any((before[name].value() != after[name].value()).any() for name in before)
    configuration = (tmp_path / "config.gin").read_text()
    assert f"{'online' if online else 'offline'}_feed" in configuration


@pytest.mark.parametrize("run", ["sft", "preference_model", "reward_model"])
def test_a_run_without_an_algorithm_trains(run, folder, tmp_path, monkeypatch):
    task = "jsonl_sft" if run == "sft" else "jsonl_comparisons"
    if run == "sft":
        lines = '{"prompt": "Add numbers.", "completion": "Sum of numbers."}\n' * 9
        for split in ("train", "validation"):
            (tmp_path / f"{split}.jsonl").write_text(lines)
        monkeypatch.setenv("PO_JAX_JSONL_DIR", str(tmp_path))
    arguments = [
        f"--gin_file={folder}/model.gin",
        f"--gin_file=gin/runs/{run}.gin",
        f"--gin.MODEL_DIR={tmp_path / 'run'}",
        f"--gin.MIXTURE_OR_TASK_NAME={task}",
        "--gin.MIXTURE_OR_TASK_MODULE=tasks.jsonl",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 6}",
        "--gin.BATCH_SIZE=8",
        "--gin.TRAIN_STEPS=1",
    ]
    assert train.main(arguments) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert {line["split"] for line in lines} == {"train", "held_out"}
    assert all("accuracy" in line for line in lines)


def test_the_same_command_resumes_and_its_configuration_can_be_run_again(folder, tmp_path, capsys):
    short = command(folder, "online", "ipo_md", tmp_path / "run")
    longer = [*short, "--gin.TRAIN_STEPS=4"]
    assert train.main(short) == 0
    assert train.main(longer) == 0
    again = [f"--gin_file={tmp_path}/run/config.gin", f"--gin.MODEL_DIR='{tmp_path}/again'"]
    assert train.main(again) == 0
    assert train.main([*again, f"--gin.MODEL_DIR='{tmp_path}/run'"]) == 0  # the same, in full
    capsys.readouterr()
    for other, before, now in (
        ([*longer, "--gin.BATCH_SIZE=16"], "data.batch_size 8", "16"),
        ([*longer, "--gin.TAU=0.7"], "model.objective.tau 0.1", "0.7"),
        (command(folder, "online", "dpo_md", tmp_path / "run"), "loss.is 'ipo'", "'dpo'"),
    ):
        assert train.main(other) == 1
        assert f"{before}: expected the same to go on, got {now}" in capsys.readouterr().err
    resumed, alone = (open_checkpoint(tmp_path / name).parameters for name in ("run", "again"))
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a.value(), b.value()), dict(resumed), dict(alone)
    )


@pytest.mark.parametrize(
    ("run", "algorithm", "more", "message"),
    [
        ("online", "ipo", (), "BETAS are None.*give an online algorithm"),
        ("offline", "online_ipo", (), r"BETAS \(0.0, 0.0\): give an offline algorithm"),
        (
            "online",
            "rlhf",
            ("--gin.JUDGE_MODEL=@judges.PreferenceModel()",),
            "a judge with rewards",
        ),
        ("online", "ipo_md", ("--gin.JUDGE_CHECKPOINT_PATH=None",), "preference_model.gin"),
        ("online", "ipo_md", ("--gin.BETTA=0.1",), "Nearest: BETA"),
        ("offline", "ipo", ("--gin.BATCH_SIZE=6",), "multiple of 8 .* got 6"),
        ("offline", "ipo", ("--gin.EVAL_SPLIT='tset'",), "tset"),
        ("offline", "ipo", ("--gin.INITIAL_CHECKPOINT_PATH='nowhere'",), "nowhere"),
        ("offline", "ipo", ("--gin.MIXTURE_OR_TASK_MODULE='tasks.jsonll'",), "tasks.jsonll"),
    ],
)
def test_a_mistake_ends_with_one_line(run, algorithm, more, message, folder, tmp_path, capsys):
    assert train.main(command(folder, run, algorithm, tmp_path, *more)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(message, errors[0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a", "chosen": "b"', "train.jsonl, line 12: expected JSON"),
        ('{"prompt": "a", "chosen": " ", "rejected": "c"}', "line 12: 'chosen' is empty"),
        ('{"prompt": "a", "chosen": "b"}', "line 12: expected the key 'rejected'"),
    ],
)
def test_a_bad_line_is_named(line, message, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "validation.jsonl").write_text((folder / "validation.jsonl").read_text())
    (tmp_path / "train.jsonl").write_text((folder / "train.jsonl").read_text() + line + "\n")
    monkeypatch.setenv("PO_JAX_JSONL_DIR", str(tmp_path))
    assert train.main(command(folder, "offline", "ipo", tmp_path / "run")) == 1
    assert message in capsys.readouterr().err
    (tmp_path / "train.jsonl").unlink()
    assert train.main(command(folder, "offline", "ipo", tmp_path / "run")) == 1
    assert f"got no file at {tmp_path / 'train.jsonl'}" in capsys.readouterr().err
