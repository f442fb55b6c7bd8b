"""Metrics that add up over micro-batches, steps and hosts.

They are pytrees with the interface of `clu.metrics.Metric` (`merge`, `compute`, `compute_value`),
which is all that T5X's trainer asks of a metric; clu itself is needed only there.
"""

from collections.abc import Mapping
from typing import Self

import flax
import jax.numpy as jnp
from jaxtyping import Array, Float

from po_jax.types import Leaf


class Metric:
    """What `Mean` and `Sum` share: T5X's way to ask for the value."""

    def compute_value(self):
        """The value as clu's summary writers want it."""
        from clu import values

        return values.Scalar(self.compute())


@flax.struct.dataclass
class Mean(Metric):
    """A weighted mean, kept as the weighted total and the total weight."""

    total: Leaf
    count: Leaf

    @classmethod
    def of(cls, values: Array, weights: Array | None = None) -> Self:
        """The mean of all elements, weighted if weights (of any number dtype) are given."""
        values = values.astype(jnp.float32)
        if weights is None:
            return cls(jnp.sum(values), jnp.float32(values.size))
        weights = weights.astype(jnp.float32)
        return cls(jnp.sum(values * weights), jnp.sum(weights))

    def merge(self, other: Self) -> Self:
        return type(self)(self.total + other.total, self.count + other.count)

    def compute(self) -> Float[Array, ""]:
        """The mean; nan where nothing was counted."""
        return self.total / self.count


@flax.struct.dataclass
class Sum(Metric):
    """A plain sum."""

    total: Leaf

    def merge(self, other: Self) -> Self:
        return type(self)(self.total + other.total)

    def compute(self) -> Float[Array, ""]:
        return self.total


Metrics = Mapping[str, Mean | Sum]


def merge(first: Metrics, second: Metrics) -> dict[str, Mean | Sum]:
    """Metrics over the union of two sets of examples; both must hold the same names."""
    return {name: metric.merge(second[name]) for name, metric in first.items()}
