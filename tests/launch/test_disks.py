"""Every command on a disk that is full or read-only: one line, and what was there stays."""

import json
import os

import gin
import pytest

from launch import convert, evaluate, label, play, sample, train
from tests.launch import test_label, tiny_policies

ROWS = [{"prompt": f"Text {i}.", "chosen": f"Return {i}.", "rejected": "No."} for i in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two policies and a file of comparisons, which does for prompts as well."""
    where = tmp_path_factory.mktemp("disks")
    for split in ("train", "validation", "test"):
        (where / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (where / "judge.gin").write_text(test_label.JUDGE)
    tiny_policies.write(where, {"sft": 0, "ipo": 1})
    yield where
    gin.clear_config()


@pytest.fixture
def commands(folder, monkeypatch):
    """Each command's program, and its arguments but for the place that it writes to."""
    monkeypatch.setenv("PO_JAX_JSONL_DIR", str(folder))
    lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 4}"
    task = ["--gin.MIXTURE_OR_TASK_MODULE=tasks.jsonl", lengths, "--gin.BATCH_SIZE=8"]
    prompts = [*task, "--gin.MIXTURE_OR_TASK_NAME=jsonl_prompts"]

    def run(name):
        return [f"--gin_file={folder / 'model.gin'}", f"--gin_file=gin/runs/{name}.gin"]

    policies = {name: str(folder / name) for name in ("sft", "ipo")}
    checkpoint = f"--gin.CHECKPOINT_PATH={folder / 'sft'}"
    return {
        "sample": (sample, [*run("sample"), *prompts, checkpoint], "--output={}/out.jsonl"),
        "label": (
            label,
            [*run("label"), f"--gin_file={folder / 'judge.gin'}", *prompts, checkpoint],
            "--gin.OUTPUT={}/out.jsonl",
        ),
        "evaluate": (
            evaluate,
            [*run("evaluate"), *prompts, f"--gin.POLICIES={policies}"],
            "--gin.OUTPUT_DIR={}/report",
        ),
        "play": (play, ["--gin_file=gin/runs/play.gin"], "--gin.OUTPUT_DIR={}/play"),
        "convert": (convert, [f"--from={folder / 'sft'}", "--format=hugging_face"], "--to={}/hf"),
        "train": (
            train,
            [
                *run("offline"),
                "--gin_file=gin/algorithms/ipo.gin",
                *task,
                "--gin.MIXTURE_OR_TASK_NAME=jsonl_comparisons",
                f"--gin.INITIAL_CHECKPOINT_PATH={folder / 'sft'}",
                "--gin.EVAL_BATCHES=1",
            ],
            "--gin.MODEL_DIR={}/run",
        ),
    }


def fill(disk):
    """Leaves no byte, nor a place for another file's first."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (2**12, 1):
            with pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(size))


def told(program, arguments, capfd):
    """The one line that a command ends with."""
    capfd.readouterr()
    assert program.main(arguments) == 1
    lines = [
        line
        for line in capfd.readouterr().err.splitlines()
        if "error: " in line and ".cc:" not in line
    ]
    assert len(lines) == 1
    return lines[0]


def files(place):
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["sample", "label", "evaluate", "play", "train"])
def test_a_disk_that_can_only_be_read(commands, mounted, capfd, name):
    program, arguments, place = commands[name]
    disk = mounted("ro,size=1m")
    steps = ["--gin.TRAIN_STEPS=2"] if name == "train" else []
    line = told(program, [*arguments, *steps, place.format(disk)], capfd)
    assert line.startswith("error: ") and ("read-only" in line or "Read-only" in line)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample", "label", "evaluate"])
def test_a_disk_that_is_full_at_the_end(commands, mounted, capfd, name):
    program, arguments, place = commands[name]
    disk = mounted()
    if name == "evaluate":
        (disk / "report").mkdir()
        (disk / "report" / "report.json").write_text("of before")
    else:
        (disk / "out.jsonl").write_text("of before")
    fill(disk)
    before = files(disk)
    line = told(program, [*arguments, "--overwrite", place.format(disk)], capfd)
    assert line.startswith("error: ") and "No space left on device" in line
    assert files(disk) == before


@pytest.mark.slow
def test_a_run_goes_on_when_there_is_room_again(commands, mounted, tmp_path, capfd):
    program, arguments, place = commands["train"]
    disk = mounted("size=8m")
    command = [*arguments, "--gin.EVAL_PERIOD=2", "--gin.SAVE_PERIOD=2", place.format(disk)]
    assert program.main([*command, "--gin.TRAIN_STEPS=2"]) == 0
    before = files(disk / "run")
    fill(disk)
    line = told(program, [*command, "--gin.TRAIN_STEPS=4"], capfd)
    assert line.startswith("error: ") and "No space left on device" in line
    after = files(disk / "run")
    assert {name: after.get(name) for name in before} == before
    os.unlink(disk / "filler")
    assert program.main([*command, "--gin.TRAIN_STEPS=4"]) == 0
    records = [json.loads(line) for line in (disk / "run" / "metrics.jsonl").open()]
    assert [(r["step"], r["split"]) for r in records] == [
        (0, "held_out"),
        (2, "held_out"),
        (2, "train"),
        (4, "held_out"),
        (4, "train"),
    ]


@pytest.mark.parametrize(
    ("name", "binding", "expected"),
    [
        ("sample", "CHECKPOINT_PATH=/nowhere", "CHECKPOINT_PATH: /nowhere: expected a Hugging"),
        ("label", "CHECKPOINT_PATH=/nowhere", "CHECKPOINT_PATH: /nowhere: expected a Hugging"),
        ("evaluate", "POLICIES={'a': '/no'}", "POLICIES, 'a': /no: expected a Hugging Face"),
        ("train", "INITIAL_CHECKPOINT_PATH=/nowhere", "/nowhere: expected a Hugging Face"),
        ("train", "LOG_PERIOD=0", "Trainer.log_period: expected 1 or more, got 0"),
        ("train", "TRAIN_STEPS=-1", "Trainer.total_steps: expected 1 or more, got -1"),
        ("train", "RANDOM_SEED=-1", "expected a random seed in [0, 2^32), got -1"),
        ("train", "MICRO_BATCHES=0", "Updates.micro_batches: expected 1 or more, got 0"),
        ("train", "LEARNING_RATE=-0.5", "expected a finite rate"),
    ],
)
def test_paths_and_ranges_are_looked_at_before_data(
    commands, monkeypatch, tmp_path, capfd, name, binding, expected
):
    monkeypatch.setenv("PO_JAX_JSONL_DIR", str(tmp_path / "no data"))
    program, arguments, place = commands[name]
    steps = ["--gin.TRAIN_STEPS=2"] if name == "train" and "STEPS" not in binding else []
    command = [*arguments, *steps, place.format(tmp_path), f"--gin.{binding}"]
    assert expected in told(program, command, capfd)
