"""What starts a run on a cluster, as text: for SLURM, GKE, Cloud TPU VMs, and by hand."""

from collections.abc import Mapping
import dataclasses
import json
import shlex
import textwrap

from launch.machines import hosts_of_slice, machine_of
from po_jax.planning.chips import Topology

PORT = 8476  # of the first process, where the others find it
_GRACE = 300  # seconds between the signal and the end, to save in


@dataclasses.dataclass(frozen=True)
class Job:
    """A run on a cluster.

    Attributes:
      name: of the job: lower-case letters, digits and dashes.
      topology: that it runs on.
      command: the run's own, such as `python -m launch.train ...`.
      image: of a container; None where the machines have the software.
      bucket: such as gs://mine, where the run and what was compiled are kept; None for a folder
        that all hosts share, named in the command.

    Raises:
      ValueError: on a name that Kubernetes does not take, or without a command.
    """

    name: str
    topology: Topology
    command: tuple[str, ...]
    image: str | None = None
    bucket: str | None = None

    def __post_init__(self):
        if not self.name.replace("-", "").isalnum() or self.name != self.name.lower():
            raise ValueError(
                f"expected a name of lower-case letters, digits and dashes, got {self.name!r}"
            )
        if not self.command:
            raise ValueError("expected the run's command after --, got none")

    @property
    def whole_command(self) -> tuple[str, ...]:
        """The command, with the run's folder in the bucket."""
        if self.bucket is None:
            return self.command
        return (*self.command, f"--gin.MODEL_DIR={self.bucket.rstrip('/')}/{self.name}")

    @property
    def environment(self) -> dict[str, str]:
        """What the run is told beside its command."""
        if self.bucket is None:
            return {}
        return {"JAX_COMPILATION_CACHE_DIR": f"{self.bucket.rstrip('/')}/compiled"}


def _exports(variables: Mapping[str, str]) -> str:
    """Lines of a shell."""
    return "".join(f"export {n}={shlex.quote(v)}\n" for n, v in variables.items())


def slurm(job: Job, time_limit: str = "24:00:00", partition: str | None = None) -> str:
    """A script for sbatch: a task a GPU; it comes back after preemption and after its time limit.

    Raises:
      ValueError: on a topology of TPUs.
    """
    if machine_of(job.topology).tpu_type:
        raise ValueError(f"{job.topology}: expected GPUs, such as h100:4x8, for SLURM")
    hosts, gpus = hosts_of_slice(job.topology)
    container = f" --container-image={shlex.quote(job.image)}" if job.image else ""
    chosen = f"#SBATCH --partition={partition}\n" if partition else ""
    head = f"""\
#!/usr/bin/env bash
#SBATCH --job-name={job.name}
#SBATCH --nodes={hosts}
#SBATCH --ntasks-per-node={gpus}
#SBATCH --gpus-per-node={gpus}
#SBATCH --time={time_limit}
#SBATCH --signal=B:USR1@{_GRACE}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={job.name}.log
{chosen}"""
    body = f"""\
set -euo pipefail
{_exports(job.environment)}
# Before the time limit: the run saves, and the job queues again. Preempted, SLURM does both itself.
again=
trap 'again=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

# jax.distributed.initialize() finds the other tasks by SLURM's variables.
srun --kill-on-bad-exit=1{container} {shlex.join(job.whole_command)} &
# A signal ends a wait before the run has ended.
status=0
wait $! || status=$?
if [[ $again ]]; then
  wait $! || true
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""
    return f"{head}\n{body}"


def by_hand(job: Job, hosts: tuple[str, ...]) -> str:
    """A line for each host; the first one's is where the others look."""
    lines = [
        f"# on {host}\n"
        f"PO_JAX_COORDINATOR={hosts[0]}:{PORT} PO_JAX_NUM_PROCESSES={len(hosts)} "
        f"PO_JAX_PROCESS_ID={index} {shlex.join(job.whole_command)}\n"
        for index, host in enumerate(hosts)
    ]
    return _exports(job.environment) + "".join(lines)


def tpu_vm(job: Job, zone: str) -> str:
    """Commands of gcloud: make the machines, run on all of them, give them back.

    Raises:
      ValueError: on a topology of GPUs, or of several slices.
    """
    if not machine_of(job.topology).tpu_type or job.topology.slices > 1:
        raise ValueError(f"{job.topology}: expected one slice of TPUs, such as v5p:4x4x4")
    name = f"{shlex.quote(job.name)} --zone={shlex.quote(zone)}"
    inside = shlex.join(job.whole_command)
    # These machines do not tell in the environment that there are others.
    variables = {"PO_JAX_COORDINATOR": "auto", **job.environment}
    if job.image:
        given = "".join(f" --env {n}={shlex.quote(v)}" for n, v in variables.items())
        inside = f"sudo docker run --rm --privileged --net=host{given} {job.image} {inside}"
    else:
        inside = f"{_exports(variables)}{inside}".replace("\n", "; ")
    gcloud = "gcloud compute tpus tpu-vm"
    runtime = machine_of(job.topology).runtime
    return f"""\
{gcloud} create {name} --accelerator-type={accelerator_type(job.topology)} --version={runtime}
# The same line, given again, resumes.
{gcloud} ssh {name} --worker=all --command={shlex.quote(inside)}
{gcloud} delete {name}
"""


def gke(job: Job) -> str:
    """A JobSet for `kubectl apply`.

    Raises:
      ValueError: without an image.
    """
    if job.image is None:
        raise ValueError("expected --image=IMAGE for GKE, got none")
    tpu = bool(machine_of(job.topology).tpu_type)
    hosts, _ = hosts_of_slice(job.topology)
    slices = job.topology.slices
    exclusive = "alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool"
    annotations = f"  annotations:\n    {exclusive}\n" if tpu else ""
    pod = textwrap.indent(_pod(job), " " * 14)
    return f"""\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {job.name}
{annotations}spec:
  network:
    enableDNSHostnames: true
  failurePolicy:
    maxRestarts: 100  # Each one resumes from the newest checkpoint.
  replicatedJobs:
    - name: slice
      replicas: {slices}
      template:
        spec:
          parallelism: {hosts}
          completions: {hosts}
          completionMode: Indexed
          backoffLimit: 0  # One process that ends, ends all: the JobSet starts all again.
          template:
            spec:
{pod}"""


def _pod(job: Job) -> str:
    """The specification of the pods."""
    machine = machine_of(job.topology)
    hosts, chips = hosts_of_slice(job.topology)
    environment = {name: json.dumps(value) for name, value in job.environment.items()}
    if machine.tpu_type:
        shape = "x".join(map(str, job.topology.shape))
        select = [f"cloud.google.com/gke-tpu-accelerator: {machine.gke}"]
        select.append(f"cloud.google.com/gke-tpu-topology: {shape}")
        resource = "google.com/tpu"
    else:
        select, resource = [f"cloud.google.com/gke-accelerator: {machine.gke}"], "nvidia.com/gpu"
        first = f"{job.name}-slice-0-0.{job.name}:{PORT}"
        environment |= {
            "PO_JAX_COORDINATOR": json.dumps(first),
            "PO_JAX_NUM_PROCESSES": json.dumps(str(hosts)),
        }
    lines = [f"- name: {name}\n  value: {value}" for name, value in environment.items()]
    if not machine.tpu_type:
        lines.append(
            "- name: PO_JAX_PROCESS_ID\n"
            "  valueFrom:\n"
            "    fieldRef:\n"
            "      fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']"
        )
    given = textwrap.indent("\n".join(lines), " " * 6)
    listed = f"    env:\n{given}\n" if lines else ""
    selected = textwrap.indent("\n".join(select), "  ")
    return f"""\
restartPolicy: Never
terminationGracePeriodSeconds: {_GRACE}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
nodeSelector:
{selected}
containers:
  - name: run
    image: {json.dumps(job.image)}
    command: {json.dumps(list(job.whole_command))}
{listed}    ports:
      - containerPort: {PORT}
    resources:
      limits:
        {resource}: {chips}
"""


def xpk(job: Job, cluster: str) -> str:
    """XPK's command for the same job.

    Raises:
      ValueError: without an image.
    """
    if job.image is None:
        raise ValueError("expected --image=IMAGE for XPK, got none")
    machine, topology = machine_of(job.topology), job.topology
    hosts, chips = hosts_of_slice(topology)
    if machine.tpu_type:
        where = f"--tpu-type={accelerator_type(topology)} --num-slices={topology.slices}"
    else:
        kind = machine.gke.removeprefix("nvidia-")
        where = f"--device-type={kind}-{chips} --num-nodes={hosts}"
    given = "".join(f" --env={n}={shlex.quote(v)}" for n, v in job.environment.items())
    return (
        f"xpk workload create --cluster={shlex.quote(cluster)} --workload={job.name} {where} "
        f"--docker-image={shlex.quote(job.image)}{given} "
        f"--command={shlex.quote(shlex.join(job.whole_command))}\n"
    )


def accelerator_type(topology: Topology) -> str:
    """Cloud TPU's name for one slice, such as v5p-128 for 64 chips of two cores each."""
    machine = machine_of(topology)
    return f"{machine.tpu_type}-{topology.chips // topology.slices * machine.cores}"
