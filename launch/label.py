"""Makes comparisons: completions of each prompt by a policy, every pair judged by any judge.

    python -m launch.label \\
      --gin_file=gin/models/t5_1_1/small.gin --gin_file=gin/runs/label.gin \\
      --gin.CHECKPOINT_PATH=runs/sft --gin.OUTPUT=comparisons/train.jsonl ...

Writes one JSON object a line with prompt, chosen, rejected and preference, as `tasks.jsonl` reads.
"""

from argparse import Namespace
from collections.abc import Sequence
import sys

from launch import gin_support


def label(arguments: Namespace) -> None:
    """Makes the configured comparisons."""
    import gin

    from po_jax.data import json_lines
    from po_jax.evaluation import labelling

    labelled = gin_support.call(labelling.Labelling)
    count = json_lines.write(gin.query_parameter("OUTPUT/macro.value"), labelled.records())
    print(f"wrote {count} comparisons")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return gin_support.run(label, argv, __doc__, runs=["gin/runs/label.gin"])


if __name__ == "__main__":
    sys.exit(main())
