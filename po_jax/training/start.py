"""How a run begins: fresh, from someone's checkpoint, or where it was interrupted."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray
import optax

from po_jax.checkpoints import adapters
from po_jax.checkpoints.about import About, AdapterFacts
from po_jax.checkpoints.load import load, load_frozen, load_trained, open_checkpoint
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.language_model import joined, trained_part
from po_jax.lora import LoRA
from po_jax.memory import require_memory
from po_jax.models.base import Model
from po_jax.partitioning import Partitioner, shardings_of
from po_jax.training.random_start import fresh_parameters
from po_jax.training.randomness import purpose_key
from po_jax.training.state import TrainState, laid_out_run
from po_jax.types import Params


class Start:
    """Makes states and parameters in their places on the mesh.

    Where the language model has adapters, the state is of these alone. What they start as, on the
    frozen base, is the reference too: with a fresh adapter the base as it is, and with one that
    was trained before the two together.

    Args:
      model: what is trained.
      optimizer: turns gradients into updates; any transformation of optax.
      partitioner: the mesh and its rules.
      key: the run's root key.
      average: keep a moving average of the parameters.
      checkpoint_path: parameters to start from, in any known format; None for fresh ones.

    Raises:
      ValueError: if the checkpoint is of another kind of model, or there is none for adapters.
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
        self._model = model
        self._opened = None if checkpoint_path is None else open_checkpoint(checkpoint_path)
        if self._opened is not None:
            self._opened.about.require_start(f"{self._opened.path}", model.about())
        elif self._adapts is not None:
            raise ValueError("Start: expected a checkpoint for adapters to be put on, got none")
        self._like, self._frozen_like = laid_out_run(model.language_model, create, partitioner)
        self.shardings = shardings_of(self._like)
        require_memory((self._like, self._frozen_like), "parameters and optimiser")
        self._init = functools.partial(fresh_parameters, init, shardings=self.shardings.params)
        self._create = jax.jit(create, donate_argnums=0, out_shardings=self.shardings)

    @property
    def _adapts(self) -> LoRA | None:
        """The language model, where it has adapters."""
        network = self._model.language_model
        return network if isinstance(network, LoRA) else None

    @functools.cached_property
    def about(self) -> About:
        """What the run's checkpoints say of themselves."""
        about, network = self._model.about(), self._adapts
        if network is None:
            return about
        assert self._opened is not None
        base = self._opened.base or self._opened
        facts = AdapterFacts(
            base=str(base.path),
            fingerprint=adapters.fingerprint(base.parameters),
            scale=network.scale,
            dtype=network.base_dtype,
        )
        return dataclasses.replace(about, adapter=facts)

    @functools.cached_property
    def frozen(self) -> Params:
        """The parameters that are not trained, loaded once; often none."""
        if not self._frozen_like:
            return {}
        assert self._opened is not None
        return load_frozen(self._opened, self._frozen_like)

    @property
    def frozen_shardings(self) -> list[Any]:
        """Of the parameters that are not trained, where there are any; see `make_train_step`."""
        return [shardings_of(self._frozen_like)] if self._frozen_like else []

    def join(self, trained: Params) -> Params:
        """The language model's parameters, of those that are trained."""
        return joined(trained, self.frozen)

    def parameters(self, dtype: str | None = None) -> Params:
        """The parameters that training starts from, anew at every call and always the same.

        Frozen ones are the same arrays at every call.

        Args:
          dtype: to keep them in; None for the policy's own, which adapters ask for.

        Raises:
          ValueError: if the checkpoint is damaged, or of another model.
        """
        if self._adapts is not None:
            assert self._opened is not None
            trained = load_trained(self._opened, self._adapts, self._like.params, self._key)
            return self.join(trained)
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
        restored = manager.restore(self._like, self.about)
        if restored is not None:
            return restored[1]
        params = self.parameters()
        begin(params)
        return self._create(trained_part(self._model.language_model, params))


def cast(params: Params, dtype: str | None) -> Params:
    """Parameters in another dtype, or as they are."""
    return params if dtype is None else jax.tree.map(lambda x: x.astype(dtype), params)
