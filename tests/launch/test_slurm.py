"""The script of `launch.cluster slurm` under a real SLURM of one machine, with two tasks.

Needs root, and Debian's slurmctld, slurmd, slurm-client and munge; it is skipped elsewhere.
"""

import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import time

import pytest

from launch import cluster

_NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")
_HERE = os.geteuid() == 0 and all(map(shutil.which, _NEEDED))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _HERE, reason=f"needs root and {', '.join(_NEEDED)}"),
]

_RUN = """
import os, pathlib, signal, sys, time
import jax

folder = pathlib.Path(sys.argv[1])
jax.distributed.initialize()
name = f"{jax.process_index()} of {jax.process_count()}"
turn = os.environ.get("SLURM_RESTART_COUNT", "0")
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
(folder / f"started {name}, turn {turn}").touch()
while turn == "0" and not stopped:
    time.sleep(0.1)
(folder / f"ended {name}, turn {turn}").touch()
jax.distributed.shutdown()
"""


def _configuration(folder: Path, ports: list[int]) -> str:
    host = socket.gethostname()
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
MpiDefault=none
ReturnToService=2
KillWait=60
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(happened, what: str, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return
        time.sleep(0.2)
    pytest.fail(f"within {seconds} s: {what} did not happen")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster of this machine; its folder."""
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "slurm.conf").write_text(_configuration(folder, _free_ports(2)))
    countable = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"  # not GPUs
    (folder / "gres.conf").write_text(countable)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    files = {"key": "munge.key", "pid": "munge.pid", "seed": "seed", "log": "munge.log"}
    options = [f"--{name}-file={folder / file}" for name, file in files.items()]
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *options],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D"],
    ]
    started = []
    try:
        for daemon in daemons:
            with (folder / f"{daemon[0]}.out").open("wb") as out:
                started.append(subprocess.Popen(daemon, stdout=out, stderr=out))
            time.sleep(1.0)
        _wait_for(lambda: "idle" in _output("sinfo", "-h", "-o", "%t"), "the node being idle")
        yield folder
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(30)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_two_tasks_are_signalled_before_the_limit_and_queued_again(slurm, tmp_path, capsys):
    run, marks = tmp_path / "run.py", tmp_path / "marks"
    run.write_text(_RUN)
    marks.mkdir()
    arguments = ["slurm", "--name=two", "--topology=h100:1x2", "--time=10:00", "--"]
    assert cluster.main([*arguments, sys.executable, str(run), str(marks)]) == 0
    script = tmp_path / "two.sh"
    script.write_text(capsys.readouterr().out)
    subprocess.run(
        ["sbatch", "--export=ALL,JAX_PLATFORMS=cpu", str(script)], cwd=tmp_path, check=True
    )

    def seen(*names: str):
        return lambda: {path.name for path in marks.iterdir()} >= set(names)

    _wait_for(seen("started 0 of 2, turn 0", "started 1 of 2, turn 0"), "the start of both tasks")
    # What SLURM does when the time limit is near.
    job = _output("squeue", "-h", "-o", "%A").split()[0]
    subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    _wait_for(seen("ended 0 of 2, turn 0", "ended 1 of 2, turn 0"), "the end of both tasks")
    _wait_for(lambda: "PENDING" in _output("squeue", "-h", "-o", "%T"), "the job in the queue")
    # A job that was requeued waits for two minutes by default.
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
    _wait_for(seen("ended 0 of 2, turn 1", "ended 1 of 2, turn 1"), "the second turn")
