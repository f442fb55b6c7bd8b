"""Processes that do not belong together: all end, and say in a line what is not the same."""

import shutil
import signal

from tests.distributed import cluster

RUN = [
    "launch.train",
    "--gin_file=gin/models/t5_1_1/small.gin",
    "--gin_file=gin/runs/sft.gin",
    "--gin.MIXTURE_OR_TASK_MODULE=nowhere",
    "--gin.MIXTURE_OR_TASK_NAME=nothing",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 12, 'targets': 5}",
]


def ends(logs, command, **options):
    """What each of two processes says last; both fail, within a stated time."""
    started = cluster.start(command, (2, 1, 1), logs, **options)
    assert cluster.end(started, 120.0) == [1, 1], "\n".join(cluster.consoles(logs))
    return [(logs / f"{index}.log").read_text().strip().splitlines()[-1] for index in (0, 1)]


def train(tmp_path, *settings, **options):
    settings = [f"--gin.MODEL_DIR={tmp_path}/run", "--gin.TRAIN_STEPS=10", *settings]
    return ends(tmp_path / "logs", [*RUN, *settings], **options)


def test_another_setting(tmp_path):
    expected = (
        "error: expected TRAIN_STEPS to be the same on every process, got '20' on process 0 and "
        "'21' on process 1"
    )
    assert train(tmp_path, "--gin.TRAIN_STEPS=2PROCESS") == [expected] * 2


def test_another_number_of_devices(tmp_path):
    expected = (
        "error: expected the number of devices to be the same on every process, got 10 on process "
        "0 and 11 on process 1"
    )
    assert train(tmp_path, JAX_NUM_CPU_DEVICES="1PROCESS") == [expected] * 2


def test_other_code(tmp_path):
    (tmp_path / "0").symlink_to(cluster.ROOT)
    for part in ("launch", "po_jax", "tasks", "gin"):
        shutil.copytree(cluster.ROOT / part, tmp_path / "1" / part)
    with (tmp_path / "1" / "po_jax" / "metrics.py").open("a") as file:
        file.write("# Fixed.\n")
    for line in train(tmp_path, folder=tmp_path / "PROCESS"):
        assert line.startswith("error: expected the code of po_jax to be the same on every process")


def disturbed(tmp_path, name):
    command = ["tests.distributed.disturbed", str(tmp_path), "3", name]
    cache = str(tmp_path / "jax")
    return ends(tmp_path / "logs", command, TROUBLE="1", JAX_COMPILATION_CACHE_DIR=cache)


def test_a_folder_that_each_has_for_itself(tmp_path):
    for index, line in enumerate(disturbed(tmp_path, "own_folder")):
        assert line == (
            f"error: {tmp_path}/own_folder/{index}: expected a folder that all processes share, "
            "got one of its own on process 1: a run needs a shared file system, or a bucket"
        )


def test_other_data(tmp_path):
    for line in disturbed(tmp_path, "other_data"):
        assert line == (
            "error: expected data.examples to be the same on every process, got 21 on process 0 "
            "and 20 on process 1"
        )


def test_more_are_waited_for_than_were_started(tmp_path):
    said = train(tmp_path, PO_JAX_NUM_PROCESSES="3", PO_JAX_WAIT_SECONDS="12")
    for index, line in enumerate(said):
        assert f"process {index} of 3 needs the other 2: they did not come in 12 s" in line


def test_one_number_given_twice(tmp_path):
    """JAX ends the process that the second one with this number replaces, if it hears of both."""
    options = {"PO_JAX_PROCESS_ID": "0", "PO_JAX_WAIT_SECONDS": "12"}
    started = cluster.start(RUN, (2, 1, 1), tmp_path, **options)
    statuses = cluster.end(started, 120.0)
    assert set(statuses) <= {1, -signal.SIGABRT}
    said = (tmp_path / f"{statuses.index(1)}.log").read_text()
    assert "process 0 of 2 needs the other 1: they did not come in 12 s" in said
    assert "each with its own PO_JAX_PROCESS_ID" in said
