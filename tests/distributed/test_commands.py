"""The commands themselves, on four processes' worth of devices in two processes, and on one."""

import json

import pytest

from tests.distributed import cluster, same
from tests.launch import tiny_policies

TASK = [
    "--gin.MIXTURE_OR_TASK_MODULE='tasks.jsonl'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 6}",
    "--gin.BATCH_SIZE=8",
]
JUDGE = """
from __gin__ import dynamic_registration
from po_jax import judges
from tests.distributed import runs

JUDGE = @judges.CallableJudge
judges.CallableJudge.judge = @runs.prefer_longer
"""
SHAPES = {"one": (1, 1, 1), "two": (2, 2, 2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    tiny_policies.write(folder, {"sft": 0, "other": 1})
    (folder / "judge.gin").write_text(JUDGE)
    for split, count in (("train", 11), ("validation", 3), ("test", 7)):
        rows = [
            {
                "prompt": f"Add {n} numbers and return their sum.",
                "chosen": "Sum of numbers.",
                "rejected": f"Returns {n}.",
            }
            for n in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(folder, command, task, *arguments):
    """Runs a command once on one process and once on two."""
    for name, shape in SHAPES.items():
        given = [argument.format(out=folder / name) for argument in arguments]
        cluster.run(
            [
                f"launch.{command}",
                f"--gin_file={folder}/model.gin",
                f"--gin.MIXTURE_OR_TASK_NAME='{task}'",
                *TASK,
                f"--gin.NUM_PARTITIONS={shape[2]}",
                *given,
            ],
            shape,
            folder / name / f"{command}_logs",
            PO_JAX_JSONL_DIR=str(folder),
            JAX_COMPILATION_CACHE_DIR=str(folder / "jax"),
        )


def lines(folder, file):
    """Of both."""
    return [
        [json.loads(line) for line in (folder / name / file).read_text().splitlines()]
        for name in SHAPES
    ]


def test_sample(folder):
    run(
        folder,
        "sample",
        "jsonl_prompts",
        "--gin_file=gin/runs/sample.gin",
        f"--gin.CHECKPOINT_PATH='{folder / 'sft'}'",
        "--output={out}/sampled.jsonl",
    )
    one, two = lines(folder, "sampled.jsonl")
    assert len(one) == 7
    same.assert_close(two, one)


def test_label(folder):
    run(
        folder,
        "label",
        "jsonl_prompts",
        "--gin_file=gin/runs/label.gin",
        f"--gin_file={folder}/judge.gin",
        f"--gin.CHECKPOINT_PATH='{folder / 'sft'}'",
        "--gin.OUTPUT={out}/labelled.jsonl",
    )
    one, two = lines(folder, "labelled.jsonl")
    assert one
    same.assert_close(two, one)
    assert "wrote" not in (folder / "two" / "label_logs" / "1.log").read_text()


def test_evaluate(folder):
    policies = {name: str(folder / name) for name in ("sft", "other")}
    run(
        folder,
        "evaluate",
        "jsonl_prompts",
        "--gin_file=gin/runs/evaluate.gin",
        f"--gin_file={folder}/judge.gin",
        "--gin.POLICIES=" + json.dumps(policies).replace("{", "{{").replace("}", "}}"),
        "--gin.OUTPUT_DIR='{out}/report'",
    )
    reports = [json.loads((folder / name / "report/report.json").read_text()) for name in SHAPES]
    for report in reports:
        report.pop("config")
        calls = report["judge"]["calls"]
        assert calls["questions"] == 7 * 2
        calls.pop("seconds")
    same.assert_close(reports[1], reports[0])


def test_train(folder):
    run(
        folder,
        "train",
        "jsonl_prompts",
        "--gin_file=gin/runs/online.gin",
        "--gin_file=gin/algorithms/ipo_md.gin",
        f"--gin_file={folder}/judge.gin",
        "--gin.MODEL_DIR='{out}/model'",
        f"--gin.INITIAL_CHECKPOINT_PATH='{folder / 'sft'}'",
        "--gin.TRAIN_STEPS=2",
        "--gin.LOG_PERIOD=1",
        "--gin.EVAL_BATCHES=1",
        "--gin.OPTIMIZER=@optax.sgd()",
        "--gin.optax.sgd.learning_rate=0.01",
    )
    same.assert_same(folder / "two" / "model", folder / "one" / "model")
