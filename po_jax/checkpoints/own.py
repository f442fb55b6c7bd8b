"""Writes what po_jax's own loop goes on from: a run's checkpoint of its step, slots included."""

from typing import Any

from etils import epath
from flax.traverse_util import unflatten_dict
import numpy as np

from po_jax.checkpoints.about import About
from po_jax.checkpoints.leaves import Leaves
from po_jax.checkpoints.manager import CheckpointManager


def write(
    directory: epath.Path,
    parameters: Leaves,
    *,
    slots: Leaves,
    average: Leaves,
    step: int,
    about: About,
) -> None:
    """Writes `checkpoint_<step>` into an empty directory, which becomes a run's MODEL_DIR.

    Args:
      directory: that exists.
      parameters: by their path in the parameter tree.
      slots: Adafactor's, "<path>/v_row" and so on; empty for a start without optimiser.
      average: moving average of the parameters; empty for a run without one.
      step: of training.
      about: what is known of the checkpoint beside its arrays.
    """
    state: dict[str, Any] = {"step": np.int32(step), "params": _tree(parameters)}
    if slots:
        slot_state = {"step": np.int32(step), "param_states": _tree(slots)}
        state |= {"optimizer_state": slot_state, "average": _tree(average) or None}
    manager = CheckpointManager(directory)
    manager.save(step, state, about=about)
    manager.close()


def _tree(leaves: Leaves) -> dict[str, Any]:
    return unflatten_dict({name: leaf.value() for name, leaf in leaves.items()}, sep="/")
