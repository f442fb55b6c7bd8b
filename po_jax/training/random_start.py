"""Fresh parameters, leaf by leaf: one program is compiled for each kind of leaf, not one of all.

What makes a leaf, such as a normal distribution of its shape, takes a compiler long, and as one
program with all other leaves it is compiled as often as there are leaves. Leaves that differ in
nothing but a number that the random key is folded with, which Flax makes of their path, share one.
"""

from collections.abc import Callable, Sequence
import dataclasses
import re
from typing import Any

import jax
from jax.extend import core
from jaxtyping import PRNGKeyArray

from po_jax.types import Params

_FOLD = "random_fold_in"
_FOLDED = re.compile(rf"({_FOLD} \w+) \d+")
_LOOPS = ("scan", "while")


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """What computes one leaf of a traced function of a key.

    Attributes:
      jaxpr: of the whole function, whose first inputs are its constants.
      equations: those that the leaf needs, in order.
      result: the leaf.
    """

    jaxpr: core.ClosedJaxpr
    equations: list[Any]
    result: Any

    @property
    def numbers(self) -> list[Any]:
        """That keys are folded with."""
        folds = (eqn for eqn in self.equations if eqn.primitive.name == _FOLD)
        return [eqn.invars[1].val for eqn in folds]

    @property
    def alone(self) -> bool:
        """Whether it is made by itself, and not in a loop over layers that makes others too."""
        return not any(eqn.primitive.name in _LOOPS for eqn in self.equations)

    @property
    def kind(self) -> str:
        """The same text for leaves that differ in their numbers alone."""
        own = self.jaxpr.jaxpr.replace(eqns=self.equations, outvars=[self.result])
        return _FOLDED.sub(r"\1", str(own))

    def compute(self, key: PRNGKeyArray, numbers: Sequence[Any]) -> Any:
        """The leaf, of other numbers."""
        left = iter(numbers)
        inner = self.jaxpr.jaxpr
        known = dict(zip(inner.constvars, self.jaxpr.consts, strict=True))
        known[inner.invars[0]] = key

        def read(variable):
            return variable.val if isinstance(variable, core.Literal) else known[variable]

        for eqn in self.equations:
            given = [read(variable) for variable in eqn.invars]
            if eqn.primitive.name == _FOLD:
                given[1] = next(left)
            made = eqn.primitive.bind(*given, **eqn.params)
            made = made if eqn.primitive.multiple_results else [made]
            known.update(zip(eqn.outvars, made, strict=True))
        return read(self.result)


def _leaf(jaxpr: core.ClosedJaxpr, result: Any) -> _Leaf:
    """What computes one of a function's results."""
    needed, equations = {id(result)}, []
    for eqn in reversed(jaxpr.jaxpr.eqns):
        if needed & set(map(id, eqn.outvars)):
            needed |= set(map(id, eqn.invars))
            equations.append(eqn)
    return _Leaf(jaxpr, equations[::-1], result)


def fresh_parameters(
    init: Callable[[PRNGKeyArray], Params], key: PRNGKeyArray, shardings: Any
) -> Params:
    """`init(key)`, laid out by shardings.

    Args:
      init: makes parameters; it must be one that JAX can trace.
      key: all randomness.
      shardings: of the parameters.
    """
    jaxpr, shapes = jax.make_jaxpr(init, return_shape=True)(key)
    structure: Any = jax.tree.structure(shapes)
    leaves = [_leaf(jaxpr, result) for result in jaxpr.jaxpr.outvars]
    if not all(leaf.alone for leaf in leaves):
        return jax.jit(init, out_shardings=shardings)(key)
    programs: dict[Any, Callable[..., Any]] = {}
    made = []
    for leaf, sharding in zip(leaves, structure.flatten_up_to(shardings), strict=True):
        program = programs.setdefault(
            (leaf.kind, sharding), jax.jit(leaf.compute, out_shardings=sharding)
        )
        made.append(program(key, leaf.numbers))
    return jax.tree.unflatten(structure, made)
