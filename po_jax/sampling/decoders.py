"""The decoders that a loop runs side by side: a policy's and, where there is one, its partner's."""

from collections.abc import Sequence
import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from po_jax.language_model import LanguageModel, Take, frozen_part, joined, trained_part
from po_jax.types import Params

Logits = Sequence[Float[Array, "rows vocab"]]  # of each policy


@runtime_checkable
class Decoders(Protocol):
    """Several policies that are fed the same tokens.

    Attributes:
      count: how many.
    """

    @property
    def count(self) -> int: ...

    def begin(self, prompt: Int[Array, "batch prompt"], samples: int, length: int) -> Any:
        """Empty caches for `samples` completions of each prompt, up to `length` tokens."""

    def extend(self, caches: Any, tokens: Int[Array, "rows"]) -> tuple[Logits, Any]:
        """Feeds one token a row; the logits of the next one, and the longer caches."""

    def take(self, caches: Any, prompts: Take, rows: Take) -> Any:
        """The caches of some rows; see `LanguageModel.take`."""


def decoders(model: LanguageModel, policy: Params, partner: Params | None) -> Decoders:
    """The decoders of a policy and its partner.

    Args:
      model: of both.
      policy: its parameters.
      partner: its parameters; of what is trained alone where all else is the policy's; or None.
    """
    if partner is None:
        return _Apart(model, (model.for_sampling(policy),))
    if not model.frozen or set(model.frozen) & set(partner):
        return _Apart(model, tuple(map(model.for_sampling, (policy, partner))))
    shared = frozen_part(model, policy)
    read = [model.for_sampling(params) for params in (policy, joined(partner, shared))]
    return _Together(
        model,
        jax.tree.map(lambda *each: jnp.stack(each), *(trained_part(model, one) for one in read)),
        frozen_part(model, read[0]),
    )


@dataclasses.dataclass(frozen=True)
class _Apart:
    """Policies with all parameters of their own, run one after the other."""

    model: LanguageModel
    params: tuple[Params, ...]

    @property
    def count(self) -> int:
        return len(self.params)

    def begin(self, prompt, samples, length):
        return tuple(
            self.model.prefill(params, self.model.encode(params, prompt), samples, length)
            for params in self.params
        )

    def extend(self, caches, tokens):
        extended = [
            self.model.extend(params, cache, tokens)
            for params, cache in zip(self.params, caches, strict=True)
        ]
        return [logits for logits, _ in extended], tuple(cache for _, cache in extended)

    def take(self, caches, prompts, rows):
        return tuple(self.model.take(cache, prompts, rows) for cache in caches)


@dataclasses.dataclass(frozen=True)
class _Together:
    """Policies that differ in what is trained alone: all else is read once for both.

    Attributes:
      trained: with an axis of policies before all others, as the caches have it. What has no axis
        in a cache, such as a position, is the same for all.
      shared: the rest.
    """

    model: LanguageModel
    trained: Params
    shared: Params

    @property
    def count(self) -> int:
        return len(jax.tree.leaves(self.trained)[0])

    def begin(self, prompt, samples, length):
        each = [
            joined(jax.tree.map(lambda x, one=one: x[one], self.trained), self.shared)
            for one in range(self.count)
        ]
        caches = _Apart(self.model, tuple(each)).begin(prompt, samples, length)
        return jax.tree.map(lambda *x: jnp.stack(x) if x[0].ndim else x[0], *caches)

    def extend(self, caches, tokens):
        leaves, structure = jax.tree.flatten(caches)
        params, along = joined(self.trained, self.shared), _axes(leaves)

        def extend(params, leaves):
            logits, cache = self.model.extend(params, structure.unflatten(leaves), tokens)
            return logits, jax.tree.leaves(cache)

        axes = {name: None if name in self.shared else 0 for name in params}
        logits, leaves = jax.vmap(extend, (axes, along), (0, along))(params, leaves)
        return list(logits), structure.unflatten(leaves)

    def take(self, caches, prompts, rows):
        leaves, structure = jax.tree.flatten(caches)
        along = _axes(leaves)

        def take(leaves):
            return jax.tree.leaves(self.model.take(structure.unflatten(leaves), prompts, rows))

        return structure.unflatten(jax.vmap(take, (along,), along)(leaves))


def _axes(leaves: Sequence[Array]) -> list[int | None]:
    """Where a cache's arrays have the axis of policies."""
    return [0 if leaf.ndim else None for leaf in leaves]
