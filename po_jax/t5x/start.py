"""How a run under T5X begins: from a checkpoint of any format, with fresh slots, at step 0."""

from typing import Any

import flax
import jax
from jax.sharding import NamedSharding
from jaxtyping import PRNGKeyArray
import numpy as np
from t5x import partitioning as t5x_partitioning
from t5x import train_state as t5x_train_state
from t5x import utils as t5x_utils

from po_jax.checkpoints.load import Checkpoint, load, open_checkpoint
from po_jax.lengths import Lengths
from po_jax.models.base import Model
from po_jax.partitioning import Partitioner
from po_jax.training.loop import Updates
from po_jax.types import Params

AVERAGE = "average"  # the collection that holds a moving average of the parameters


def partitioner_of(t5x: t5x_partitioning.BasePartitioner) -> Partitioner:
    """Our partitioner on T5X's mesh, by T5X's rules: for samplers and judges.

    Rows keep their limits: T5X compiles its step for them, once.
    """
    return Partitioner(t5x.mesh, tuple(t5x.logical_axis_rules), Lengths((1.0,)))


class Start(t5x_utils.TrainStateInitializer):
    """T5X's initialiser, for `train`'s `train_state_initializer_cls`; overrides `from_scratch`.

    T5X calls that where MODEL_DIR has no checkpoint yet and its own `restore` names none.

    Args:
      optimizer_def, init_fn, input_shapes, partitioner, input_types: of T5X.
      initial_checkpoint_path: a checkpoint of po_jax, T5X or Hugging Face; None for fresh
        parameters.
      updates: whether the state keeps a moving average.
    """

    def __init__(
        self,
        optimizer_def: Any,
        init_fn: Any,
        input_shapes: Any,
        partitioner: t5x_partitioning.BasePartitioner,
        input_types: Any = None,
        *,
        initial_checkpoint_path: str | None,
        updates: Updates,
    ):
        self._variables = _Variables(init_fn.__self__, updates.average_decay is not None)
        self._optimizer_def = optimizer_def
        self._path = initial_checkpoint_path
        init_fn = self._variables.get_initial_variables
        super().__init__(optimizer_def, init_fn, input_shapes, partitioner, input_types)

    def from_scratch(self, init_rng: PRNGKeyArray) -> t5x_train_state.TrainState:
        """The state at step 0; raises ValueError if the checkpoint is of another model."""
        if self._path is None:
            return super().from_scratch(init_rng)
        axes = self.train_state_axes
        checkpoint = open_checkpoint(self._path)
        checkpoint.about.require_start(f"{checkpoint.path}", self._variables.model.about())
        params = _load(checkpoint, self.global_train_state_shape.params, axes, self._partitioner)
        create = self._partitioner.partition(
            lambda params: t5x_train_state.FlaxOptimTrainState.create(
                self._optimizer_def, flax.core.freeze(self._variables.of(params))
            ),
            in_axis_resources=(flax.core.unfreeze(axes.params),),
            out_axis_resources=axes,
            donate_argnums=(0,),
        )
        return create(params)


class AnyCheckpoint:
    """Reads for T5X's `eval` and `infer` what our own loop or Hugging Face wrote, and T5X's own.

    For `RestoreCheckpointConfig.checkpointer_cls`, with `use_orbax=False`.

    Args:
      train_state: shapes of the state to restore.
      partitioner: of T5X.
      restore_dtype: to keep the parameters in; None for float32.
      **given: what else T5X gives to its checkpointers.
    """

    def __init__(
        self,
        train_state: t5x_train_state.TrainState,
        partitioner: t5x_partitioning.BasePartitioner,
        restore_dtype: Any = None,
        **given: Any,
    ):
        self._state = train_state
        self._partitioner = partitioner
        self._dtype = restore_dtype

    def restore(self, path: str, **_: Any) -> t5x_train_state.TrainState:
        """The state of a checkpoint, or of the latest in a directory; no slots."""
        checkpoint = open_checkpoint(path)
        axes = self._partitioner.get_mesh_axes(self._state)
        params = _load(checkpoint, self._state.params, axes, self._partitioner, self._dtype)
        state = {"step": np.int32(checkpoint.step)}
        return self._state.restore_state({"target": params, "state": state})


def _load(
    checkpoint: Checkpoint,
    shapes: Any,
    axes: t5x_train_state.TrainState,
    partitioner: t5x_partitioning.BasePartitioner,
    dtype: Any = None,
) -> Params:
    """The parameters of a checkpoint where T5X has their places."""
    like = jax.tree.map(
        lambda shape, spec: jax.ShapeDtypeStruct(
            shape.shape, dtype or shape.dtype, sharding=NamedSharding(partitioner.mesh, spec)
        ),
        flax.core.unfreeze(shapes),
        flax.core.unfreeze(axes.params),
    )
    return load(checkpoint, like)


class _Variables:
    """A model's initial variables, with the moving average and its axes where one is kept."""

    def __init__(self, model: Model, average: bool):
        self.model = model
        self._average = average

    def get_initial_variables(
        self, rng: PRNGKeyArray, input_shapes: Any, input_types: Any = None
    ) -> dict[str, Any]:
        """Of fresh parameters."""
        variables = self.model.get_initial_variables(rng, input_shapes, input_types)
        return self.of(variables["params"])

    def of(self, params: Params) -> dict[str, Any]:
        """Of given parameters."""
        axes = self.model.params_axes()
        variables = {"params": params, "params_axes": axes}
        if self._average:
            variables |= {AVERAGE: params, f"{AVERAGE}_axes": axes}
        return variables
