"""The script of `launch.cluster slurm` under a real SLURM of one machine, with two tasks.

Needs root, and Debian's slurmctld, slurmd, slurm-client and munge; it is skipped elsewhere.
"""

import json
import os
from pathlib import Path
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest

from launch import cluster
from tests.launch import tiny_policies

_NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")
_HERE = os.geteuid() == 0 and all(map(shutil.which, _NEEDED))
pytestmark = [
    pytest.mark.slurm,
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


_ROOT = Path(__file__).resolve().parents[2]

# Takes its time.
_JUDGE = """
from __gin__ import dynamic_registration
from po_jax import judges
from tests.distributed import disturbed

JUDGE = @judges.CallableJudge
judges.CallableJudge.judge = @disturbed.slow
JUDGE_THREADS = 2
"""


def _configuration(folder: Path, ports: list[int]) -> str:
    host = socket.gethostname()
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
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
    job = _submit(tmp_path, capsys, str(run), str(marks))

    def seen(*names: str):
        return lambda: {path.name for path in marks.iterdir()} >= set(names)

    _wait_for(seen("started 0 of 2, turn 0", "started 1 of 2, turn 0"), "the start of both tasks")
    _let_the_limit_come_near(job)
    _wait_for(seen("ended 0 of 2, turn 0", "ended 1 of 2, turn 0"), "the end of both tasks")
    # It queues again, and starts when the first turn's credential is no longer remembered.
    _wait_for(seen("ended 0 of 2, turn 1", "ended 1 of 2, turn 1"), "the second turn")


def test_a_run_of_training_saves_before_the_limit_and_goes_on(slurm, tmp_path, capsys, monkeypatch):
    tiny_policies.write(tmp_path, {"sft": 0})
    (tmp_path / "judge.gin").write_text(_JUDGE)
    rows = "".join(json.dumps({"prompt": f"Add {n} and {n}."}) + "\n" for n in range(9))
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(rows)
    monkeypatch.setenv("PO_JAX_JSONL_DIR", str(tmp_path))
    monkeypatch.setenv("PO_JAX_VOCABULARY", "docstrings")
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    command = ["-m", "launch.train", f"--gin_file={tmp_path}/model.gin"]
    command += [f"--gin_file=gin/{name}.gin" for name in ("runs/online", "algorithms/ipo_md")]
    command += [f"--gin_file={tmp_path}/judge.gin"]
    settings = {
        "MIXTURE_OR_TASK_MODULE": "tasks.jsonl",
        "MIXTURE_OR_TASK_NAME": "jsonl_prompts",
        "TASK_FEATURE_LENGTHS": "{'inputs': 8, 'targets': 4}",
        "BATCH_SIZE": 8,
        "INITIAL_CHECKPOINT_PATH": tmp_path / "sft",
        "MODEL_DIR": tmp_path / "run",
        "TRAIN_STEPS": 12,
        "LOG_PERIOD": 1,
    }
    command += [f"--gin.{name}={value}" for name, value in settings.items()]
    job = _submit(tmp_path, capsys, *command)
    metrics, log = tmp_path / "run" / "metrics.jsonl", tmp_path / "two.log"

    def steps() -> list[int]:
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        records = [json.loads(line) for line in lines]
        return [record["step"] for record in records if record["split"] == "train"]

    _wait_for(lambda: 3 in steps(), "the third step", 300.0)
    _let_the_limit_come_near(job)
    _wait_for(lambda: not _output("squeue", "-h"), "the end of the second turn", 300.0)
    (saved,) = re.findall(r"SIGTERM on process \d: saved step (\d+)", log.read_text())
    assert 3 <= int(saved) < 12
    assert log.read_text().count(f"resuming from step {saved} of") == 1
    assert steps() == list(range(1, 13))
    assert (tmp_path / "run" / "checkpoint_12").exists()


def _submit(folder: Path, capsys, *run: str) -> str:
    """Queues a run of Python as two tasks; returns the job's number."""
    arguments = ["slurm", "--name=two", "--topology=h100:1x2", "--time=10:00", "--"]
    assert cluster.main([*arguments, sys.executable, *run]) == 0
    script = folder / "two.sh"
    script.write_text(capsys.readouterr().out)
    queue = ["sbatch", "--parsable", "--export=ALL,JAX_PLATFORMS=cpu", str(script)]
    return subprocess.run(queue, cwd=folder, check=True, capture_output=True, text=True).stdout


def _let_the_limit_come_near(job: str) -> None:
    """Does what SLURM does then."""
    subprocess.run(["scancel", "--batch", "--signal=USR1", job.strip()], check=True)
