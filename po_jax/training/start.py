"""How a run begins: fresh, from someone's checkpoint, or where it was interrupted."""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray
import optax

from po_jax.checkpoints.load import load, open_checkpoint
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.memory import require_memory
from po_jax.models.base import Model
from po_jax.partitioning import Partitioner
from po_jax.training.random_start import fresh_parameters
from po_jax.training.randomness import purpose_key
from po_jax.training.state import TrainState, state_shardings
from po_jax.types import Params


class Start:
    """Makes states and parameters in their places on the mesh.

    Args:
      model: what is trained.
      optimizer: turns gradients into updates; any transformation of optax.
      partitioner: the mesh and its rules.
      key: the run's root key.
      average: keep a moving average of the parameters.
      checkpoint_path: parameters to start from, in any known format; None for fresh ones.
    """

    def __init__(
        self,
        model: Model,
        optimizer: optax.GradientTransformation,
        partitioner: Partitioner,
        key: PRNGKeyArray,
        *,
        average: bool,
        checkpoint_path: str | None,
    ):
        def create(params):
            return TrainState.create(params, optimizer, average=average)

        def init(key):
            return model.get_initial_variables(key)["params"]

        self._key = purpose_key(key, 0, "parameters")
        self._about = model.about()
        self._opened = None if checkpoint_path is None else open_checkpoint(checkpoint_path)
        if self._opened is not None:
            self._opened.about.require_start(f"{self._opened.path}", self._about)
        shapes = jax.eval_shape(lambda key: create(init(key)), self._key)
        self.shardings = state_shardings(shapes, model.parameter_axes(), partitioner)
        self._like = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.shardings,
        )
        require_memory(self._like, "parameters and optimiser")
        self._init = functools.partial(fresh_parameters, init, shardings=self.shardings.params)
        self._create = jax.jit(create, donate_argnums=0, out_shardings=self.shardings)

    def parameters(self, dtype: str | None = None) -> Params:
        """The parameters that training starts from, anew at every call and always the same.

        Args:
          dtype: to keep them in; None for the policy's own.

        Raises:
          ValueError: if the checkpoint is damaged, or of another model.
        """
        if self._opened is None:
            return cast(self._init(self._key), dtype)
        wanted = jnp.float32 if dtype is None else jnp.dtype(dtype)
        return load(self._opened, jax.tree.map(lambda x: x.update(dtype=wanted), self._like.params))

    def state(self, manager: CheckpointManager, begin: Callable[[Params], None]) -> TrainState:
        """The newest state that the manager has, or the state at step 0.

        Args:
          manager: of the run's checkpoints.
          begin: told the parameters of a state at step 0.

        Raises:
          ValueError: if the checkpoint to restore or to start from is of another model.
        """
        restored = manager.restore(self._like, self._about)
        if restored is not None:
            return restored[1]
        params = self.parameters()
        begin(params)
        return self._create(params)


def cast(params: Params, dtype: str | None) -> Params:
    """Parameters in another dtype, or as they are."""
    return params if dtype is None else jax.tree.map(lambda x: x.astype(dtype), params)
