"""Plays the exact lab: figures of both papers' claims, and a table of what was measured.

python -m launch.play --gin_file=gin/runs/play.gin --gin.OUTPUT_DIR=play
"""

from argparse import Namespace
from collections.abc import Sequence
import logging
import sys

from launch import command_line, gin_support, outputs


def play(arguments: Namespace) -> None:
    """Plays the configured exhibits."""
    from po_jax.game import exhibits

    logging.getLogger(exhibits.__name__).setLevel(logging.INFO)
    folder = gin_support.call(outputs.new_folder, overwrite=arguments.overwrite)
    with outputs.written_whole(folder) as beside:
        gin_support.call(exhibits.write, folder=str(beside))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return gin_support.run(
        play, argv, __doc__, runs=["gin/runs/play.gin"], options=command_line.overwrite
    )


if __name__ == "__main__":
    sys.exit(main())
