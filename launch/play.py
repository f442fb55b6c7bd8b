"""Plays the exact lab: figures of both papers' claims, and a table of what was measured.

python -m launch.play --gin_file=gin/runs/play.gin --gin.OUTPUT_DIR=play
"""

from argparse import Namespace
from collections.abc import Sequence
import logging
import sys

from launch import gin_support


def play(arguments: Namespace) -> None:
    """Plays the configured exhibits."""
    from po_jax.game import exhibits

    logging.getLogger(exhibits.__name__).setLevel(logging.INFO)
    gin_support.call(exhibits.write)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return gin_support.run(play, argv, __doc__, runs=["gin/runs/play.gin"])


if __name__ == "__main__":
    sys.exit(main())
