"""Trains by gin files: a model, a run and, for a policy, an algorithm.

    python -m launch.train \\
      --gin_file=gin/models/t5_1_1/small.gin \\
      --gin_file=gin/runs/online.gin \\
      --gin_file=gin/algorithms/ipo_md.gin \\
      --gin.MODEL_DIR="'runs/ipo_md'" --gin.TRAIN_STEPS=1000 ...

The same command, given again, resumes. MODEL_DIR/config.gin is the configuration that was in force.
"""

from collections.abc import Sequence
import logging
from pathlib import Path
import sys

import gin

from launch import gin_support, settings
from po_jax.checkpoints.manager import CheckpointError
from po_jax.judges import JudgeError
from po_jax.reporting.reporter import NonFiniteLoss
from po_jax.training import loop


def train() -> None:
    """Runs the configured training."""
    model_dir = Path(gin.query_parameter("MODEL_DIR/macro.value"))

    def keep_configuration() -> None:
        (model_dir / "config.gin").write_text(gin.operative_config_str())

    gin.get_configurable(settings.check_algorithm)()
    gin.get_configurable(loop.Trainer)(started=keep_configuration).train()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        gin_support.parse(argv, __doc__)
        train()
    except (ValueError, JudgeError, CheckpointError, NonFiniteLoss) as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
