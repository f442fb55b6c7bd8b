"""Prints what starts a run on a cluster; runs nothing.

    python -m launch.cluster gke --name=ipo-md --topology=v5p:4x4x4 \\
      --image=europe-docker.pkg.dev/mine/runs/po_jax --bucket=gs://mine \\
      -- python -m launch.train --gin_file=my_run.gin > ipo-md.yaml
    kubectl apply -f ipo-md.yaml

After -- stands the command of the run itself. With --bucket, its MODEL_DIR is the job's name there.
"""

import argparse
from collections.abc import Callable, Sequence
import sys

from launch import gin_support


def _job(arguments: argparse.Namespace):
    from launch.manifests import Job
    from po_jax.planning.chips import Topology

    return Job(
        name=arguments.name,
        topology=Topology.parse(arguments.topology, arguments.slices),
        command=tuple(arguments.command),
        image=arguments.image,
        bucket=arguments.bucket,
    )


def _slurm(arguments: argparse.Namespace) -> str:
    from launch import manifests

    return manifests.slurm(_job(arguments), arguments.time, arguments.partition)


def _gke(arguments: argparse.Namespace) -> str:
    from launch import manifests

    job = _job(arguments)
    beside = manifests.xpk(job, arguments.cluster)
    return f"{manifests.gke(job)}# The same by XPK:\n# {beside}"


def _tpu_vm(arguments: argparse.Namespace) -> str:
    from launch import manifests

    return manifests.tpu_vm(_job(arguments), arguments.zone)


def _by_hand(arguments: argparse.Namespace) -> str:
    from launch import manifests

    return manifests.by_hand(_job(arguments), tuple(arguments.hosts.split(",")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(required=True, metavar="slurm | gke | tpu_vm | by_hand")

    def kind(name: str, render: Callable[[argparse.Namespace], str], about: str):
        found = kinds.add_parser(name, help=about, description=about)
        found.set_defaults(render=render)
        add = found.add_argument
        add("--name", required=True, help="of the job")
        add("--topology", required=True, metavar="CHIP:SHAPE", help="v5p:4x4x4, h100:4x8, ...")
        add("--slices", type=int, default=1, metavar="N", help="slices of this topology")
        add("--image", help="of the container")
        add("--bucket", metavar="gs://...", help="for the run and what is compiled")
        add("--debug", action="store_true", help="show the traceback of an error")
        add("command", nargs="*", metavar="-- COMMAND", help="of the run")
        return add

    add = kind("slurm", _slurm, "A script for sbatch, which queues again when it is preempted.")
    add("--time", default="24:00:00", help="limit, after which it goes on in a new turn")
    add("--partition", help="of the cluster")
    add = kind("gke", _gke, "A JobSet for kubectl apply, and XPK's command.")
    add("--cluster", default="CLUSTER", help="for XPK's command")
    add = kind("tpu_vm", _tpu_vm, "Commands of gcloud for Cloud TPU VMs.")
    add("--zone", required=True, help="of the TPU")
    add = kind("by_hand", _by_hand, "A line for each host.")
    add("--hosts", required=True, metavar="A,B", help="one process each; A is where B finds it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    arguments = _parser().parse_args(argv)
    return gin_support.exit_status(
        lambda: print(arguments.render(arguments), end=""), debug=arguments.debug
    )


if __name__ == "__main__":
    sys.exit(main())
