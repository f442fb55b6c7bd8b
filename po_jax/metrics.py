"""Metrics that add up over micro-batches, steps and hosts.

They are pytrees with the interface of `clu.metrics.Metric` (`merge`, `compute`, `compute_value`),
which is all that T5X's trainer asks of a metric; clu itself is needed only there.
"""

from collections.abc import Mapping

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from po_jax.types import Leaf


class Metric:
    """A metric whose fields are sums over examples; `compute` makes a value of them."""

    def merge(self, other: "Metric") -> "Metric":
        """The metric of both sets of examples."""
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> Float[Array, ""]:
        raise NotImplementedError

    def compute_value(self):
        """The value as clu's summary writers want it: for T5X."""
        from clu import values

        return values.Scalar(self.compute())


@flax.struct.dataclass
class Mean(Metric):
    """A weighted mean, kept as the weighted total and the total weight."""

    total: Leaf
    count: Leaf

    @classmethod
    def of(cls, values: Array, weights: Array | None = None) -> "Mean":
        """The mean of all elements, weighted if weights (of any number dtype) are given."""
        values = values.astype(jnp.float32)
        if weights is None:
            return cls(jnp.sum(values), jnp.float32(values.size))
        weights = weights.astype(jnp.float32)
        return cls(jnp.sum(values * weights), jnp.sum(weights))

    def compute(self) -> Float[Array, ""]:
        """The mean; nan where nothing was counted."""
        return self.total / self.count


@flax.struct.dataclass
class Sum(Metric):
    """A plain sum."""

    total: Leaf

    def compute(self) -> Float[Array, ""]:
        return self.total


Metrics = Mapping[str, Metric]


def merge(first: Metrics, second: Metrics) -> dict[str, Metric]:
    """Metrics over the union of two sets of examples; both must hold the same names."""
    return {name: metric.merge(second[name]) for name, metric in first.items()}
