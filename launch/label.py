"""Makes comparisons: completions of each prompt by a policy, every pair judged by any judge.

    python -m launch.label \\
      --gin_file=gin/models/t5_1_1/small.gin --gin_file=gin/runs/label.gin \\
      --gin.CHECKPOINT_PATH=runs/sft --gin.OUTPUT=comparisons/train.jsonl ...

Writes one JSON object a line, as `tasks.jsonl` reads it: prompt, chosen, rejected, preference, and
whether either completion ended.
A file that is there is replaced only with --overwrite.
"""

from argparse import Namespace
from collections.abc import Sequence
import logging
import sys

from launch import command_line, gin_support, outputs


def label(arguments: Namespace) -> None:
    """Makes the configured comparisons."""
    from launch import settings
    from po_jax import judges, processes
    from po_jax.data import json_lines
    from po_jax.evaluation import labelling

    output = gin_support.call(outputs.new_file, overwrite=arguments.overwrite)
    logging.getLogger(judges.__name__).setLevel(logging.INFO)
    gin_support.call(settings.check_checkpoints)
    labelled = gin_support.call(labelling.Labelling)
    records, first = labelled.records(), processes.index() == 0
    # All take part in the work; the first process writes.
    count = json_lines.write(output, records) if first else sum(1 for _ in records)
    said = [f"wrote {count} comparisons"]
    if isinstance(labelled.judge, judges.CallsFunction):
        said.append(f"the judge {labelled.judge.name}: {labelled.judge.record()}")
    if first:
        print("\n".join(said))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return gin_support.run(
        label, argv, __doc__, runs=["gin/runs/label.gin"], options=command_line.overwrite
    )


if __name__ == "__main__":
    sys.exit(main())
