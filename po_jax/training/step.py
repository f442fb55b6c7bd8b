"""The training step: gradients over micro-batches, clipping, update, in one donated sharded jit."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
import optax

from po_jax.language_model import joined
from po_jax.lengths import Lengths
from po_jax.like_lengths import at_own_length, grouped, number_of_groups
from po_jax.metrics import Mean, Metric, Sum
from po_jax.partitioning import Partitioner
from po_jax.training.randomness import purpose_key
from po_jax.training.state import TrainState
from po_jax.types import Params

Batch = Any
LossFn = Callable[[Params, Batch, PRNGKeyArray | None], tuple[Float[Array, ""], dict[str, Metric]]]


@runtime_checkable
class Trainable(Protocol):
    """The part of a model that a step needs.

    Its metrics hold "loss", which tells how the losses of parts of a batch make the loss of the
    batch: a `Mean` is averaged with its counts as weights, a `Sum` is added up.

    Attributes:
      has_dropout: whether a loss depends on its key.
    """

    @property
    def has_dropout(self) -> bool: ...

    def loss_fn(
        self, params: Params, batch: Batch, dropout_rng: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], dict[str, Metric]]: ...


def accumulate_gradients(
    loss_fn: LossFn,
    params: Params,
    batch: Batch,
    dropout_key: PRNGKeyArray,
    micro_batches: int,
    lengths: Lengths,
) -> tuple[Params, dict[str, Metric]]:
    """The gradient of the whole batch's loss, and metrics, one micro-batch after the other.

    Micro-batches are of rows of like lengths, each cut to its own. Without dropout the result does
    not depend on their number.
    """
    gradient = jax.grad(loss_fn, has_aux=True)
    if micro_batches == 1:
        return gradient(params, batch, dropout_key)

    def add_one(total, micro):
        index, micro_batch = micro

        def add(rows):
            grads, metrics = gradient(params, rows, jax.random.fold_in(dropout_key, index))
            weight = metrics["loss"].count if isinstance(metrics["loss"], Mean) else 1.0

            def plus(t, g):
                # A part without weight, such as rows without targets, has a loss of 0 / 0.
                return t + jnp.where(weight > 0, weight * g.astype(jnp.float32), 0.0)

            return jax.tree.map(plus, total, grads), metrics

        return at_own_length(lengths, add, micro_batch)

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    micro = (jnp.arange(micro_batches), grouped(lengths, batch, micro_batches))
    grads, metrics = jax.lax.scan(add_one, zeros, micro)
    metrics = jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)
    if isinstance(metrics["loss"], Mean):
        grads = jax.tree.map(lambda g: g / metrics["loss"].count, grads)
    return grads, metrics


def make_train_step(
    model: Trainable,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
    shardings: TrainState,
    *frozen: Any,
    micro_batches: int = 1,
    max_gradient_norm: float | None = None,
    average_decay: float | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Metric]]]:
    """The jitted step `(state, batch, root_key) -> (state, metrics)`; the old state is consumed.

    Metrics are the model's and "gradient_norm", before clipping, and "non_finite", the number of
    steps whose loss or gradient was not finite: they stay on the device until they are read.

    Args:
      model: what is trained.
      optimizer: turns gradients into updates; any transformation of optax.
      partitioner: the mesh and its rules.
      shardings: of the state, from `state_shardings`.
      *frozen: shardings of parameters that are not trained, the step's fourth argument, if any.
      micro_batches: pieces, at least, that a batch is processed in, to save memory.
      max_gradient_norm: a gradient of a larger global norm is scaled down to it.
      average_decay: share of the moving average that stays at each step; for states with one.

    Raises:
      ValueError: at the first call, if the mesh and the micro-batches cannot share out the batch,
        or if a state with a moving average meets no `average_decay`, or the other way round.
    """

    def train_step(state, batch, root_key, *frozen):
        _check_average(state, average_decay)
        partitioner.check_batch(jax.tree.leaves(batch)[0].shape[0], micro_batches)
        dropout_key = purpose_key(root_key, state.step, "dropout")
        with partitioner.activate():
            pieces, lengths = _pieces(model, partitioner, batch, micro_batches)
            loss_fn = _of_trained(model.loss_fn, *frozen)
            grads, metrics = accumulate_gradients(
                loss_fn, state.params, batch, dropout_key, pieces, lengths
            )
        norm = optax.tree.norm(grads)
        if max_gradient_norm is not None:
            scale = jnp.minimum(1.0, max_gradient_norm / norm)
            grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        updates, optimizer_state = optimizer.update(grads, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"].total)
        metrics["gradient_norm"] = Mean(total=norm, count=jnp.float32(1.0))
        metrics["non_finite"] = Sum(1.0 - finite.astype(jnp.float32))
        average = state.average
        if average_decay is not None:
            average = optax.incremental_update(params, average, 1.0 - average_decay)
        return TrainState(state.step + 1, params, optimizer_state, average), metrics

    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(shardings, partitioner.batch, partitioner.replicated, *frozen),
        out_shardings=(shardings, partitioner.replicated),
    )


def _of_trained(loss_fn: LossFn, *frozen: Params) -> LossFn:
    """The loss of the parameters that are trained; the same where all are."""
    if not frozen:
        return loss_fn
    return lambda trained, batch, key: loss_fn(joined(trained, *frozen), batch, key)


def _pieces(
    model: Trainable, partitioner: Partitioner, batch: Batch, micro_batches: int
) -> tuple[int, Lengths]:
    """As many as the rows' lengths are worth, where no copies of the model must add up gradients
    after each piece; and the lengths that rows are cut to."""
    # What is dropped depends on where a row stands: with dropout all stay, on any mesh.
    lengths = Lengths((1.0,)) if model.has_dropout else partitioner.lengths
    if partitioner.copies > 1:
        return micro_batches, lengths
    return number_of_groups(lengths, batch, micro_batches), lengths


def _check_average(state: TrainState, average_decay: float | None) -> None:
    if (state.average is None) != (average_decay is None):
        raise ValueError(
            "train_step: expected a moving average in the state if and only if average_decay "
            f"is given, got average_decay={average_decay}"
        )
