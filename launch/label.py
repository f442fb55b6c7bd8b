"""Makes comparisons: two completions of each prompt by a policy, judged by any annotator.

    python -m launch.label \\
      --gin_file=gin/models/t5_1_1/small.gin --gin_file=gin/runs/label.gin \\
      --gin.CHECKPOINT_PATH="'runs/sft'" --gin.OUTPUT="'comparisons/train.jsonl'" ...

Writes one JSON object a line with prompt, chosen, rejected and preference, as `tasks.jsonl` reads.
"""

from collections.abc import Sequence
import json
import logging
from pathlib import Path
import sys

import gin

from launch import gin_support
from po_jax.evaluation import labelling
from po_jax.judges.judge import AnnotatorError


def write() -> int:
    """Makes the configured comparisons; returns their number."""
    output = Path(gin.query_parameter("OUTPUT/macro.value"))
    records = list(gin_support.call(labelling.label))
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) + "\n" for record in records]
    output.write_text("".join(lines), encoding="utf-8")
    return len(records)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        gin_support.parse(argv, __doc__)
        count = write()
    except (ValueError, AnnotatorError) as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {count} comparisons")
    return 0


if __name__ == "__main__":
    sys.exit(main())
