"""Every kind of run is the same on one process and on several, whatever the mesh."""

import shutil

import pytest

from tests.distributed import cluster, runs, same

STEPS = 4
SHAPES = [(2, 1, 1), (2, 2, 2), (4, 2, 2), (4, 2, 4), (4, 2, 8)]


def make(folder, shape, names=tuple(runs.RUNS), steps=STEPS):
    """Makes runs in a folder."""
    command = ["tests.distributed.runs", str(folder), str(steps), *names]
    cluster.run(command, shape, folder / "logs", JAX_COMPILATION_CACHE_DIR=f"{folder.parent}/jax")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """All runs, made by one process on one device."""
    return make(tmp_path_factory.mktemp("runs") / "alone", (1, 1, 1))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "{}x{}, model {}".format(*shape))
def test_runs_are_the_same_on_several_processes(alone, shape):
    folder = make(alone.parent / "_".join(map(str, shape)), shape)
    for name in runs.RUNS:
        same.assert_same(folder / name, alone / name)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 2, 2)])
def test_begun_on_two_processes_goes_on_on_one_or_four(alone, shape):
    names = ["sft", "offline_ipo", "ipo_md_python"]
    begun = alone.parent / "begun"
    if not begun.exists():
        make(begun, (2, 1, 1), names, steps=2)
    gone_on = alone.parent / f"gone_on_{shape[0]}"
    shutil.copytree(begun, gone_on)
    make(gone_on, shape, names)
    for name in names:
        same.assert_same(gone_on / name, alone / name)
