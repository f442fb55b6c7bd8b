"""Optimisers as optax transformations: Adafactor exactly as T5X runs it, and AdamW.

Both take the parameters' logical axis names (a language model's `parameter_axes()`): these tell
the axes of a layer's weights from the axis along which scanned layers are stacked.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from po_jax.training.schedules import Schedule, check_rate
from po_jax.types import Leaf

# How an axis of a stacked or multi-headed weight takes part in Adafactor's factored statistics:
# "row" and "column" axes span the matrix, "batch" axes number independent matrices.
FACTOR_RULES = {
    "vocab": "column",
    "embed": "row",
    "mlp": "column",
    "heads": "column",
    "kv": "column",
    "joined_kv": "column",
    "relpos_buckets": None,
    "rank": None,
    "layers": "batch",
}


@flax.struct.dataclass
class Slots:
    """Adafactor's statistics of one parameter; those it does not need have shape [1].

    Attributes:
      v_row, v_col: second moments averaged over the column and over the row axes.
      v: second moments, where they are not factored.
      m: momentum.
    """

    v_row: Leaf
    v_col: Leaf
    v: Leaf
    m: Leaf


@flax.struct.dataclass
class AdafactorState:
    """Steps taken and, in the shape of the parameters' tree, their `Slots`; T5X's names."""

    step: Leaf
    param_states: Any


def _factored_axes(
    shape: Sequence[int], names: Sequence[str] | None, min_dim_size_to_factor: int
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]] | None]:
    """Axes over which scales are averaged, and the (row, column) axes, None if not factored.

    Weights of rank 2 and less that are not stacked are factored along their two largest axes,
    if both reach `min_dim_size_to_factor`; all others as their axes' names say, whatever the size.
    """
    everything = tuple(range(len(shape)))
    unknown = sorted(set(names or ()) - FACTOR_RULES.keys())
    if unknown:
        raise ValueError(f"Adafactor: expected axes of {sorted(FACTOR_RULES)}, got {unknown}")
    roles = [FACTOR_RULES[name] for name in names or ()]
    if len(shape) <= 2 and "batch" not in roles:
        if len(shape) < 2 or min(shape) < min_dim_size_to_factor:
            return everything, None
        row, column = np.argsort(shape, kind="stable").tolist()
        return everything, ((row,), (column,))
    if len(roles) != len(shape):
        raise ValueError(
            f"Adafactor: expected an axis name for each axis of a parameter of shape "
            f"{tuple(shape)}, got {names}"
        )
    averaged = tuple(axis for axis in everything if roles[axis] != "batch")
    rows = tuple(axis for axis in everything if roles[axis] == "row")
    columns = tuple(axis for axis in everything if roles[axis] == "column")
    return averaged, (rows, columns) if rows and columns else None


class _Methods(optax.GradientTransformation):
    """A transformation whose two functions are methods of a subclass, which is a dataclass.

    Optax's own are pairs of closures. This is such a pair too, so that optax takes it everywhere.
    """

    def __new__(cls, *args, **kwargs):
        del args, kwargs  # of the subclass's `__init__`, which runs after this

        def init(params):
            return self._init(params)

        def update(grads, state, params):
            return self._update(grads, state, params)

        self = super().__new__(cls, init, update)
        return self


@dataclasses.dataclass(frozen=True)
class Adafactor(_Methods):
    """Adafactor (arXiv 1804.04235, algorithms 4 and 5) with T5X's conventions.

    Attributes:
      learning_rate: rate, or schedule; relative to the parameters' scale.
      axes: logical axis names of every parameter; needed for scanned layers only.
      decay_rate: the second moments of step t decay by 1 - t^-decay_rate.
      step_offset: step at which fine-tuning began; the decay starts afresh there.
      beta1: momentum, none by default.
      weight_decay_rate: share of every parameter taken off at each step, none by default.
      multiply_by_parameter_scale: scale updates by the parameter's root mean square.
      clipping_threshold: largest root mean square of an unscaled update; None for no limit.
      min_dim_size_to_factor: weights with a smaller axis keep all their second moments.
      epsilon1: added to squared gradients.
      epsilon2: least parameter scale.

    Raises:
      ValueError: if the rate is negative; and, from `init` and `update`, if a parameter of rank 3
        or more has no axis names, or unknown ones.
    """

    learning_rate: float | Schedule
    axes: Any = None
    _: dataclasses.KW_ONLY
    decay_rate: float = 0.8
    step_offset: int = 0
    beta1: float | None = None
    weight_decay_rate: float | None = None
    multiply_by_parameter_scale: bool = True
    clipping_threshold: float | None = 1.0
    min_dim_size_to_factor: int = 128
    epsilon1: float = 1e-30
    epsilon2: float = 1e-3

    def __post_init__(self):
        check_rate("Adafactor.learning_rate", self.learning_rate)

    def _init(self, params):
        slots = jax.tree.map(
            lambda p, factored: _init_slots(p.shape, factored[1], self.beta1 is not None),
            params,
            self._factored(params),
        )
        return AdafactorState(step=jnp.zeros((), jnp.int32), param_states=slots)

    def _update(self, grads, state, params):
        rate = self.learning_rate
        rate = rate(state.step) if callable(rate) else rate
        since = (state.step - self.step_offset).astype(jnp.float32)
        decay = 1.0 - (since + 1.0) ** -self.decay_rate
        tree = jax.tree.structure(params)
        trees = (grads, state.param_states, params, self._factored(params))
        each = zip(*(tree.flatten_up_to(x) for x in trees), strict=True)
        updates, slots = zip(*(self._update_one(*one, rate, decay) for one in each), strict=True)
        new_state = AdafactorState(step=state.step + 1, param_states=tree.unflatten(slots))
        return tree.unflatten(updates), new_state

    def _factored(self, params):
        """The result of `_factored_axes` for every parameter."""
        names = jax.tree.map(lambda _: None, params) if self.axes is None else self.axes
        return jax.tree.map(
            lambda p, n: _factored_axes(p.shape, n, self.min_dim_size_to_factor), params, names
        )

    def _update_one(self, grad, slots, param, factored, rate, decay):
        averaged, matrix = factored
        param = param.astype(jnp.float32)
        update, slots = _normalise(grad.astype(jnp.float32), slots, matrix, decay, self.epsilon1)
        if self.clipping_threshold is not None:
            size = _root_mean_square(update, averaged)
            update = update / jnp.maximum(1.0, size / self.clipping_threshold)
        if self.multiply_by_parameter_scale:
            rate = rate * jnp.maximum(_root_mean_square(param, averaged), self.epsilon2)
        update = rate * update
        if self.beta1 is not None:
            update = self.beta1 * slots.m + (1.0 - self.beta1) * update
            slots = slots.replace(m=update)
        if self.weight_decay_rate is not None:
            update = update + self.weight_decay_rate * param
        return -update, slots


def _init_slots(shape, matrix, momentum):
    unused = jnp.zeros((1,), jnp.float32)
    slots = Slots(unused, unused, unused, unused)
    if momentum:
        slots = slots.replace(m=jnp.zeros(shape, jnp.float32))
    if matrix is None:
        return slots.replace(v=jnp.zeros(shape, jnp.float32))
    rows, columns = matrix
    return slots.replace(
        v_row=jnp.zeros(np.delete(shape, columns), jnp.float32),
        v_col=jnp.zeros(np.delete(shape, rows), jnp.float32),
    )


def _normalise(grad, slots, matrix, decay, epsilon):
    """The gradient over the root of its second moment, and the slots with that moment."""
    square = jnp.square(grad) + epsilon
    if matrix is None:
        v = decay * slots.v + (1.0 - decay) * square
        return grad * jax.lax.rsqrt(v), slots.replace(v=v)
    rows, columns = matrix

    def average(old, axes):
        new = jnp.mean(square, axis=axes, keepdims=True)
        return decay * jnp.expand_dims(old, axes) + (1.0 - decay) * new

    v_row = average(slots.v_row, columns)
    v_col = average(slots.v_col, rows)
    row_factor = jax.lax.rsqrt(v_row / jnp.mean(v_row, axis=rows, keepdims=True))
    slots = slots.replace(v_row=jnp.squeeze(v_row, columns), v_col=jnp.squeeze(v_col, rows))
    return grad * row_factor * jax.lax.rsqrt(v_col), slots


def _root_mean_square(x, axes):
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True))


def adamw(
    learning_rate: float | Schedule,
    axes: Any = None,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101); norms' scales do not decay, even stacked ones.

    Args:
      learning_rate: rate, or schedule; absolute.
      axes: logical axis names of every parameter; needed for scanned layers only.
      b1, b2: decays of the first and second moments.
      eps: added to the root of the second moment.
      weight_decay: times the learning rate, the share of a weight taken off at each step.

    Raises:
      ValueError: if the rate is negative.
    """
    check_rate("adamw.learning_rate", learning_rate)

    def decays(params):
        if axes is None:
            return jax.tree.map(lambda p: p.ndim > 1, params)
        return jax.tree.map(lambda p, names: len(set(names) - {"layers"}) > 1, params, axes)

    return optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decays)
