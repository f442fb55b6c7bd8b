"""Metrics that add up over micro-batches, steps and hosts."""

from collections.abc import Mapping

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from po_jax.types import Leaf

try:
    from clu.metrics import Metric as _CluMetric  # the class by which T5X knows a metric
except ImportError:
    _CluMetric = object


class Metric(_CluMetric):
    """A metric whose fields are sums over examples; `compute` makes a value of them."""

    def merge(self, other: "Metric") -> "Metric":
        """The metric of both sets of examples."""
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> Leaf:
        raise NotImplementedError


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

    def compute(self) -> Leaf:
        """The mean; nan where nothing was counted."""
        return self.total / self.count


@flax.struct.dataclass
class Sum(Metric):
    """A plain sum."""

    total: Leaf

    def compute(self) -> Leaf:
        return self.total


Metrics = Mapping[str, Metric]


def agreement(margin: Float[Array, " batch"], preference: Float[Array, " batch"]) -> Mean:
    """How often a margin, positive where y1 is better, has the sign of the label, P(y1 > y2) - 1/2.

    A margin of exactly 0 counts as half an agreement, a label of exactly 1/2 not at all.
    """
    side = jnp.sign(preference - 0.5)
    return Mean.of(0.5 * (1.0 + side * jnp.sign(margin)), side != 0)


def merge(first: Metrics, second: Metrics) -> dict[str, Metric]:
    """Metrics over the union of two sets of examples; both must hold the same names."""
    return {name: metric.merge(second[name]) for name, metric in first.items()}
