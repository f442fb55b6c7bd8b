"""Trains by gin files: a model, a run and, for a policy, an algorithm.

    python -m launch.train \\
      --gin_file=gin/models/t5_1_1/small.gin \\
      --gin_file=gin/runs/online.gin \\
      --gin_file=gin/algorithms/ipo_md.gin \\
      --gin.MODEL_DIR=runs/ipo_md --gin.TRAIN_STEPS=1000 ...

The same command, given again, resumes. MODEL_DIR/config.gin is the configuration that was in force.
"""

from argparse import Namespace
from collections.abc import Sequence
import sys

from launch import gin_support


def train(arguments: Namespace) -> None:
    """Runs the configured training."""
    import gin

    from launch import settings
    from po_jax import files, processes
    from po_jax.training import loop

    # A judge may change the working directory before the configuration is kept.
    folder = files.absolute(gin.query_parameter("MODEL_DIR/macro.value"))

    def keep_configuration() -> None:
        if processes.index() == 0:
            with files.written_whole(folder / "config.gin") as beside:
                beside.write_text(gin.operative_config_str())

    gin_support.call(settings.check_algorithm)
    gin_support.call(settings.check_checkpoints)
    gin_support.call(loop.Trainer, started=keep_configuration, bound=gin_support.bound).train()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return gin_support.run(train, argv, __doc__, runs=["gin/runs/online.gin"])


if __name__ == "__main__":
    sys.exit(main())
