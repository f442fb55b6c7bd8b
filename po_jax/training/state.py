"""What training changes and a checkpoint holds: step, parameters, optimiser, moving average.

What a language model has beside the parameters that are trained is no part of it.
"""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from po_jax.partitioning import Partitioner, optimizer_axis_names
from po_jax.types import Leaf, Params


@flax.struct.dataclass
class TrainState:
    """The state of one run.

    Attributes:
      step: int32, updates so far.
      params: parameters that are trained, the only thing that is differentiated.
      optimizer_state: of the optax transformation.
      average: moving average of the parameters (Nash-EMA's opponent), or None.
    """

    step: Leaf
    params: Any
    optimizer_state: Any
    average: Any = None

    @classmethod
    def create(
        cls, params: Params, optimizer: optax.GradientTransformation, *, average: bool = False
    ) -> "TrainState":
        """The state at step 0; the average, if wanted, starts at the parameters."""
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            optimizer_state=optimizer.init(params),
            # A copy: the step donates both, and no buffer can be donated twice.
            average=jax.tree.map(jnp.copy, params) if average else None,
        )


def state_shardings(state: TrainState, axes: Any, partitioner: Partitioner) -> TrainState:
    """Shardings of a train state, of arrays or of shapes, in a `TrainState`.

    Args:
      state: the state; `jax.eval_shape` of its creation will do.
      axes: axis names of the parameters.
      partitioner: the mesh and its rules.
    """
    params = partitioner.shardings(state.params, axes)
    slots = optimizer_axis_names(state.optimizer_state, state.params, axes)
    return TrainState(
        step=partitioner.replicated,
        params=params,
        optimizer_state=partitioner.shardings(state.optimizer_state, slots),
        average=None if state.average is None else params,
    )
