"""Arithmetic of a program, counted in its jaxpr: products and sums of matrix products.

XLA's own count takes a loop's body once, whatever its trips; a T5 is loops over layers and tokens.
"""

from collections.abc import Iterator
import math
from typing import Any

from jax.extend import core


def matrix_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr, trips: int) -> float:
    """Floating-point operations of all matrix products, over all devices.

    Args:
      jaxpr: the program; what the backward pass recomputes is in it, and of branches the dearest.
      trips: of a loop that ends by a condition, a decoding loop, in its first stage: no row ends
        early, and the stages after it have nothing left to do.
    """
    inner = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    total = 0.0
    for equation in inner.eqns:
        total += _flops(equation, trips)
        trips = 0 if equation.primitive.name == "while" else trips
    return total


def _flops(equation: Any, trips: int) -> float:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        lhs = equation.invars[0].aval.shape
        depth = math.prod(lhs[axis] for axis in contracted)
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * depth
    parts = [matrix_flops(part, trips) for part in _parts(equation.params)]
    if name == "cond":
        return max(parts)
    return _times(name, equation.params, trips) * sum(parts, 0.0)


def _times(name: str, params: dict[str, Any], trips: int) -> int:
    """How often what is within an equation runs, over all devices."""
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    if name == "shard_map":
        return params["mesh"].size
    return {"scan": params.get("length"), "while": trips}.get(name, 1)


def _parts(params: dict[str, Any]) -> Iterator[core.ClosedJaxpr | core.Jaxpr]:
    """The programs within an equation."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr | core.Jaxpr):
                yield item
