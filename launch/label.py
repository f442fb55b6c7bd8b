"""Makes comparisons: two completions of each prompt by a policy, judged by any annotator.

    python -m launch.label \\
      --gin_file=gin/models/t5_1_1/small.gin --gin_file=gin/runs/label.gin \\
      --gin.CHECKPOINT_PATH="'runs/sft'" --gin.OUTPUT="'comparisons/train.jsonl'" ...

Writes one JSON object a line with prompt, chosen, rejected and preference, as `tasks.jsonl` reads.
"""

from collections.abc import Sequence
import logging
import sys

import gin

from launch import gin_support
from po_jax.data import json_lines
from po_jax.evaluation import labelling
from po_jax.judges import JudgeError


def write() -> int:
    """Makes the configured comparisons; returns their number."""
    output = gin.query_parameter("OUTPUT/macro.value")
    labelled = gin.get_configurable(labelling.Labelling)()
    return json_lines.write(output, labelled.records())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        gin_support.parse(argv, __doc__)
        count = write()
    except (ValueError, JudgeError) as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {count} comparisons")
    return 0


if __name__ == "__main__":
    sys.exit(main())
