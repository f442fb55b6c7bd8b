"""Plays the exact lab: figures of both papers' claims, and a table of what was measured.

python -m launch.play --gin_file=gin/runs/play.gin --gin.OUTPUT_DIR="'play'"
"""

from collections.abc import Sequence
import logging
import sys

import gin

from launch import gin_support
from po_jax.game import exhibits


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger(exhibits.__name__).setLevel(logging.INFO)
    try:
        gin_support.parse(argv, __doc__)
        gin.get_configurable(exhibits.write)()
    except ValueError as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
