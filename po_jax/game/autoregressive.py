"""Autoregressive games: actions are completions, few enough to list all of them.

A completion is any string of tokens that ends with its first EOS, or is cut off, without one, at
the maximal length: what a sampler can return. Their probabilities sum to 1.
"""

import itertools

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from po_jax.game.equilibrium import LogPolicy
from po_jax.language_model import SpecialIds

EOS = SpecialIds().eos


@flax.struct.dataclass
class Tree:
    """All completions up to a length, and all their prefixes, itself included.

    Attributes:
      tokens: the completions: EOS included, then 0.
      mask: true on a completion's tokens.
      below: whether a completion starts with a prefix; prefix 0 is the empty one.
      parent: the prefix that is one token shorter; 0 for the empty one.
      token: the last token of each prefix; 0 for the empty one.
    """

    tokens: Int[Array, "completions length"]
    mask: Bool[Array, "completions length"]
    below: Bool[Array, "prefixes completions"]
    parent: Int[Array, " prefixes"]
    token: Int[Array, " prefixes"]


def all_completions(vocab_size: int, max_length: int) -> Tree:
    """Lists the completions over a vocabulary: (V - 1)^0 + ... + (V - 1)^max_length of them.

    Every id but EOS counts as text, 0 too: nothing forbids a model to say it.
    """
    text = [token for token in range(vocab_size) if token != EOS]
    completions = [
        (*words, EOS)
        for length in range(max_length)
        for words in itertools.product(text, repeat=length)
    ]
    completions += itertools.product(text, repeat=max_length)
    prefixes = sorted({words[:end] for words in completions for end in range(max_length + 1)})
    number = {prefix: i for i, prefix in enumerate(prefixes)}
    shape = (len(completions), max_length)
    tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    below = np.zeros((len(prefixes), len(completions)), bool)
    for i, words in enumerate(completions):
        tokens[i, : len(words)] = words
        mask[i, : len(words)] = True
        below[[number[words[:end]] for end in range(len(words) + 1)], i] = True
    return Tree(
        tokens=jnp.asarray(tokens),
        mask=jnp.asarray(mask),
        below=jnp.asarray(below),
        parent=jnp.asarray([number[prefix[:-1]] for prefix in prefixes], jnp.int32),
        token=jnp.asarray([prefix[-1] if prefix else 0 for prefix in prefixes], jnp.int32),
    )


def next_token_logprobs(tree: Tree, log_policy: LogPolicy) -> Float[Array, " prefixes"]:
    """log P(last token of a prefix | the rest of it), of a distribution over completions."""
    marginal = jax.nn.logsumexp(jnp.where(tree.below, log_policy[None], -jnp.inf), axis=-1)
    return marginal - marginal[tree.parent]


def completion_logprobs(tree: Tree, next_token: Float[Array, " prefixes"]) -> LogPolicy:
    """Sums log P(token | prefix) along each completion."""
    steps = jnp.where(tree.below, next_token[:, None], 0.0)
    return jnp.sum(steps, axis=0)


def softmax_policy(tree: Tree, logits: Float[Array, "prefixes vocab"]) -> LogPolicy:
    """The policy whose next token, after each prefix, has these logits: tabular."""
    logprobs = jax.nn.log_softmax(logits)
    next_token = logprobs[tree.parent, tree.token]
    return completion_logprobs(tree, next_token.at[0].set(0.0))


def token_mixture(
    tree: Tree, log_policy: LogPolicy, log_reference: LogPolicy, beta: float | Array
) -> LogPolicy:
    """What a sampler draws from: pi^(1 - beta) mu^beta, normalised after every token.

    The theory's mixture normalises once, over whole completions. The two agree only where the
    normaliser of the rest of a completion does not depend on its beginning.
    """
    mixed = (1.0 - beta) * next_token_logprobs(tree, log_policy)
    mixed = mixed + beta * next_token_logprobs(tree, log_reference)
    prefixes = jnp.arange(len(tree.parent), dtype=tree.parent.dtype)
    child = (tree.parent[None, :] == prefixes[:, None]) & (prefixes[None, :] > 0)
    log_z = jax.nn.logsumexp(jnp.where(child, mixed[None], -jnp.inf), axis=-1)
    next_token = mixed - log_z[tree.parent]
    return completion_logprobs(tree, next_token.at[0].set(0.0))
