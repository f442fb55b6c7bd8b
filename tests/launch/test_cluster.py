"""What starts a run on each kind of cluster, field by field. See also test_slurm.py."""

import re
import shlex
import subprocess

import pytest
import yaml

from launch import cluster

RUN = ["python", "-m", "launch.train", "--gin_file=my run.gin"]


def printed(capsys, *arguments):
    assert cluster.main([*arguments, "--", *RUN]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    assert cluster.main([*arguments, "--", *RUN]) == 1
    return capsys.readouterr().err


TPU = ("--name=ipo-md", "--topology=v5p:4x4x4", "--image=mine/po_jax:1", "--bucket=gs://mine/")
GPU = ("--name=ipo-md", "--topology=h100:3x8")


def test_a_job_set_of_two_slices_of_tpus(capsys):
    job = yaml.safe_load(printed(capsys, "gke", *TPU, "--slices=2"))
    assert (job["apiVersion"], job["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert job["metadata"]["name"] == "ipo-md"
    exclusive = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    assert job["metadata"]["annotations"] == {exclusive: "cloud.google.com/gke-nodepool"}
    (slices,) = job["spec"]["replicatedJobs"]
    assert slices["replicas"] == 2
    one = slices["template"]["spec"]
    # 64 chips, four of a host.
    assert (one["parallelism"], one["completions"], one["completionMode"]) == (16, 16, "Indexed")
    assert one["backoffLimit"] == 0 and job["spec"]["failurePolicy"]["maxRestarts"] > 0
    pod = one["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] == 300
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
    }
    (container,) = pod["containers"]
    assert container["image"] == "mine/po_jax:1"
    assert container["command"] == [*RUN, "--gin.MODEL_DIR=gs://mine/ipo-md"]
    cache = {"name": "JAX_COMPILATION_CACHE_DIR", "value": "gs://mine/compiled"}
    assert container["env"] == [cache]  # where its processes are, GKE tells TPUs itself
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}


def test_a_job_set_of_gpus_tells_processes_of_each_other(capsys):
    job = yaml.safe_load(printed(capsys, "gke", *GPU, "--image=mine/po_jax:1"))
    assert "annotations" not in job["metadata"]
    (slices,) = job["spec"]["replicatedJobs"]
    assert (slices["name"], slices["replicas"]) == ("slice", 1)
    assert job["spec"]["network"]["enableDNSHostnames"] is True
    pod = slices["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    (container,) = pod["containers"]
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert container["env"] == [
        {"name": "PO_JAX_COORDINATOR", "value": "ipo-md-slice-0-0.ipo-md:8476"},
        {"name": "PO_JAX_NUM_PROCESSES", "value": "3"},
        {"name": "PO_JAX_PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": index}}},
    ]
    assert container["ports"] == [{"containerPort": 8476}]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    assert container["command"] == RUN


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (TPU, {"--tpu-type=v5p-128", "--num-slices=1", "--cluster=ours"}),
        ((*GPU, "--image=i"), {"--device-type=h100-80gb-8", "--num-nodes=3"}),
    ],
)
def test_xpk_beside_it(capsys, arguments, expected):
    (line,) = printed(capsys, "gke", *arguments, "--cluster=ours").splitlines()[-1:]
    words = shlex.split(line.removeprefix("# "))
    assert words[:3] == ["xpk", "workload", "create"] and expected <= set(words)
    (command,) = (word for word in words if word.startswith("--command="))
    assert shlex.split(command.removeprefix("--command="))[: len(RUN)] == RUN


def test_commands_of_gcloud(capsys):
    text = printed(capsys, "tpu_vm", *TPU, "--zone=us-east5-a")
    create, ssh, delete = (shlex.split(line) for line in text.splitlines() if line[0] != "#")
    known = ["gcloud", "compute", "tpus", "tpu-vm"]
    for words, verb in ((create, "create"), (ssh, "ssh"), (delete, "delete")):
        assert words[:7] == [*known, verb, "ipo-md", "--zone=us-east5-a"]
    assert create[7:] == ["--accelerator-type=v5p-128", "--version=v2-alpha-tpuv5"]
    assert ssh[7] == "--worker=all"
    inside = shlex.split(ssh[8].removeprefix("--command="))
    assert inside[:4] == ["sudo", "docker", "run", "--rm"]
    assert inside[inside.index("--env") + 1] == "PO_JAX_COORDINATOR=auto"
    assert inside[-len(RUN) - 1 :] == [*RUN, "--gin.MODEL_DIR=gs://mine/ipo-md"]


@pytest.mark.parametrize(
    ("topology", "name"), [("v4:2x2x2", "v4-16"), ("v5e:4x4", "v5litepod-16"), ("v6e:2x4", "v6e-8")]
)
def test_names_of_accelerator_types(capsys, topology, name):
    """As on the pages of Cloud TPU: cores of a v4 or v5p, chips of a v5e or v6e."""
    text = printed(capsys, "tpu_vm", "--name=x", f"--topology={topology}", "--zone=z")
    assert f"--accelerator-type={name} " in text


def test_a_line_for_each_host(capsys):
    text = printed(capsys, "by_hand", *GPU, "--hosts=red,green")
    first, second = (line for line in text.splitlines() if not line.startswith("#"))
    for index, line in enumerate((first, second)):
        *environment, _, _, _, _ = shlex.split(line)
        assert environment == [
            "PO_JAX_COORDINATOR=red:8476",
            "PO_JAX_NUM_PROCESSES=2",
            f"PO_JAX_PROCESS_ID={index}",
        ]
        assert shlex.split(line)[3:] == RUN


def test_a_script_for_sbatch(capsys, tmp_path):
    arguments = ("--partition=big", "--time=4:00:00", "--image=i", "--bucket=gs://mine")
    text = printed(capsys, "slurm", *GPU, *arguments)
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in text.splitlines()
        if line.startswith("#SBATCH")
    )
    assert options == {
        "job-name": "ipo-md",
        "nodes": "3",
        "ntasks-per-node": "8",
        "gpus-per-node": "8",
        "time": "4:00:00",
        "signal": "B:USR1@300",
        "requeue": "",
        "open-mode": "append",
        "output": "ipo-md.log",
        "partition": "big",
    }
    script = tmp_path / "run.sh"
    script.write_text(text)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert "--container-image=i" in text
    assert "'--gin_file=my run.gin'" in text and "--gin.MODEL_DIR=gs://mine/ipo-md" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gke", *GPU), "--image=IMAGE for XPK|--image=IMAGE for GKE"),
        (("slurm", *TPU), "expected GPUs, such as h100:4x8, for SLURM"),
        (("tpu_vm", *GPU, "--zone=z"), "expected one slice of TPUs"),
        (("tpu_vm", *TPU, "--slices=2", "--zone=z"), "expected one slice of TPUs"),
        (("slurm", "--name=A_b", "--topology=h100:8"), "lower-case letters.* got 'A_b'"),
        (("slurm", "--name=a", "--topology=cpu:8"), "one of v4, .* got 'cpu:8'"),
        (("gke", "--name=a", "--topology=v5p:3x3x1", "--image=i"), "multiple of 4 chips"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(capsys, arguments, message):
    assert re.search(message, refused(capsys, *arguments))


def test_a_command_must_be_given(capsys):
    assert cluster.main(["slurm", *GPU]) == 1
    assert "expected the run's command after --, got none" in capsys.readouterr().err
