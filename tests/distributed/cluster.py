"""Starts a program as several real processes with some fake devices each, on this machine."""

import os
from pathlib import Path
import socket
import subprocess
import sys
import time

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("localhost", 0))
        return door.getsockname()[1]


def start(
    command: list[str],
    shape: tuple[int, int, int],
    logs: Path,
    alone: int | None = None,
    folder: Path = ROOT,
    **variables: str,
) -> list[subprocess.Popen]:
    """Starts `python -m command` as `count` processes; each one's console is in a file of `logs`.

    Where "PROCESS" stands in what they are given, each has its number there.

    Args:
      command: module and arguments.
      shape: processes, devices of each, and the mesh's axis "model".
      logs: folder; made if absent.
      alone: the only process to start; None for all.
      folder: to start in.
      variables: of the environment.
    """
    logs.mkdir(parents=True, exist_ok=True)
    port = free_port()
    count, devices, model_axis = shape
    started = []
    for index in range(count):
        if alone not in (None, index):
            continue
        environment = {
            "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "MODEL_AXIS": str(model_axis),
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            # Every process compiles for itself, without a cache; this takes a quarter less.
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        if count > 1:
            environment |= {
                "PO_JAX_COORDINATOR": f"localhost:{port}",
                "PO_JAX_NUM_PROCESSES": str(count),
                "PO_JAX_PROCESS_ID": str(index),
            }

        def own(given: str, index: int = index) -> str:
            return given.replace("PROCESS", str(index))

        environment |= {name: own(value) for name, value in variables.items()}
        with (logs / f"{index}.log").open("w") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", *map(own, command)],
                    cwd=own(str(folder)),
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return started


def end(started: list[subprocess.Popen], within: float) -> list[int | None]:
    """Waits for all; what has not ended by then is killed, and has no exit status."""
    until = time.monotonic() + within
    statuses: list[int | None] = []
    for process in started:
        try:
            statuses.append(process.wait(max(0.1, until - time.monotonic())))
        except subprocess.TimeoutExpired:
            statuses.append(None)
    for process in started:
        process.kill()
        process.wait()
    return statuses


def run(command: list[str], shape: tuple[int, int, int], logs: Path, **variables: str) -> None:
    """Runs a program to its end, which must be a good one."""
    statuses = end(start(command, shape, logs, **variables), within=900.0)
    assert statuses == [0] * shape[0], "\n".join(consoles(logs))


def consoles(logs: Path) -> list[str]:
    """The end of what each process said."""
    return [path.read_text()[-3000:] for path in sorted(logs.glob("*.log"))]
