"""Two processes of T5X's training against one."""

import os
from pathlib import Path
import socket
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip(
    "t5x.train", reason="needs T5X, which no package index holds", exc_type=ImportError
)

ROOT = Path(__file__).resolve().parents[2]


def start(folder, port, processes, index):
    command = [
        sys.executable,
        "-m",
        "tests.t5x.worker",
        *map(str, (folder, port, processes, index)),
    ]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_two_processes_are_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    assert start(tmp_path, port, 1, 0).wait(timeout=900) == 0
    both = [start(tmp_path, port, 2, index) for index in (0, 1)]
    assert [process.wait(timeout=900) for process in both] == [0, 0]
    one, two = (dict(np.load(tmp_path / f"of_{count}.npz")) for count in (1, 2))
    assert one.keys() == two.keys() and one
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5 * np.abs(value).max(), err_msg=name)
