"""What training changes and a checkpoint holds: step, parameters, optimiser, moving average.

What a language model has beside the parameters that are trained is no part of it.
"""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from po_jax.language_model import LanguageModel, frozen_part, trained_part
from po_jax.partitioning import Partitioner, laid_out, optimizer_axis_names
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


def laid_out_run(
    model: LanguageModel, create: Callable[[Params], TrainState], partitioner: Partitioner
) -> tuple[TrainState, Params]:
    """Shapes of a run's state, and of its parameters that are not trained, in their places.

    Args:
      model: that is trained, or a part of it.
      create: makes the state at step 0 of the parameters that are trained.
      partitioner: the mesh and its rules.
    """
    shapes, axes = jax.eval_shape(model.init, jax.random.key(0)), model.parameter_axes()
    state = jax.eval_shape(create, trained_part(model, shapes))
    shardings = state_shardings(state, trained_part(model, axes), partitioner)
    frozen = frozen_part(model, shapes)
    places = partitioner.shardings(frozen, frozen_part(model, axes))
    return laid_out(state, shardings), laid_out(frozen, places)
