"""Says what a run will need on chips that are not here: memory, time, chip hours.

    python -m launch.plan --topology=v5p:4x4x4 \\
      --gin_file=gin/models/t5_1_1/xxl.gin --gin_file=gin/models/scan.gin \\
      --gin_file=gin/runs/online.gin --gin_file=gin/algorithms/ipo_md.gin ...

Give it the files and settings of the run itself. Its programs are compiled for the topology on this
machine: no chip, data or checkpoint is needed. What does not fit is tried with less; --sweep tries
the shapes of the mesh.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
import os
import sys

from launch import command_line, gin_support, outputs


def plan(arguments: Namespace) -> None:
    """Prints the plan of the configured run."""
    from launch import planned
    from po_jax.data import json_lines
    from po_jax.planning import chips, text

    output = arguments.output
    if output is not None:
        output = outputs.new_file(output, arguments.overwrite)
    topology = chips.Topology.parse(arguments.topology, arguments.slices)

    def note(said: str) -> None:
        print(f"{said} ...", file=sys.stderr, flush=True)

    planner = planned.Planner(arguments, topology, note)
    trials = planner.sweep() if arguments.sweep else planner.until_it_fits()
    for trial in trials:
        print(f"\n# {trial.name}\n\n{text.show(trial.plan)}\n" if trial.plan else trial.name)
    print(planned.conclusion(trials))
    if output is not None:
        json_lines.write(output, (trial.as_json() for trial in trials))


def _options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--topology", required=True, metavar="CHIP:SHAPE", help="v5p:4x4x4, v5e:16x16, h100:8, ...")
    add("--slices", type=int, default=1, metavar="N", help="slices of this topology")
    add("--sweep", action="store_true", help="try the shapes of the mesh; the fastest that fits")
    add("--as_given", action="store_true", help="try nothing else if it does not fit")
    add("--output", metavar="FILE", help="JSON lines, a plan a line")
    command_line.overwrite(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # Nothing runs: a GPU is left to others.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # What is for other chips is not kept.
    return gin_support.run(plan, argv, __doc__, runs=["gin/runs/online.gin"], options=_options)


if __name__ == "__main__":
    sys.exit(main())
