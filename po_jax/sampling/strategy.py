"""How a token is drawn from the logits of a mixture: temperature, top-k, top-p, inverse CDF."""

import dataclasses
import math
from numbers import Integral

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from po_jax.partitioning import shard

BLOCKS = 128  # Of the vocabulary; a power of two, so that none lies on two shards of it.


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a token is drawn from the mixture's logits.

    Temperature, then top-k, then top-p change the distribution that tokens are drawn from and
    `Rollout.behaviour_logprob`; they never change log pi and log mu.

    Attributes:
      max_length: tokens a completion, its EOS included; a completion cut off there has no EOS.
      min_length: tokens before which EOS is not drawn.
      temperature: divides the logits; 0 takes the most probable token.
      top_k: keeps the k most probable tokens (and ties with the k-th); 0 keeps all.
      top_p: keeps the fewest most probable tokens whose mass reaches p, in (0, 1].

    Raises:
      ValueError: on a value outside its range.
    """

    max_length: int
    min_length: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        for name in ("max_length", "min_length", "top_k"):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"Strategy.{name}: expected an integer, got {getattr(self, name)}")
        for name, valid, expected in (
            ("max_length", self.max_length >= 1, "at least 1"),
            ("min_length", 0 <= self.min_length <= self.max_length, "in [0, max_length]"),
            ("temperature", 0 <= self.temperature < math.inf, "at least 0"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
        ):
            if not valid:
                raise ValueError(f"Strategy.{name}: expected {expected}, got {getattr(self, name)}")

    @property
    def unchanged(self) -> "Strategy":
        """The strategy of this length that draws from the mixture itself."""
        return Strategy(self.max_length)

    def weights(self, logits: Float[Array, "rows vocab"]) -> Float[Array, "rows vocab"]:
        """The distribution that tokens are drawn from, unnormalised: 0 where truncated.

        The largest weight of a row is 1.
        """
        if self.temperature == 0.0:
            return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
        scaled = logits / self.temperature
        if self.top_k:
            k = min(self.top_k, logits.shape[-1])
            kth = lax.top_k(scaled, k)[0][:, -1:]
            scaled = jnp.where(scaled >= kth, scaled, -jnp.inf)
        weights = jnp.exp(scaled - jnp.max(scaled, axis=-1, keepdims=True))
        if self.top_p < 1.0:
            threshold = _nucleus_threshold(weights, self.top_p)
            weights = jnp.where(weights >= threshold[:, None], weights, 0.0)
        return weights


def _nucleus_threshold(weights, top_p):
    """The largest threshold that leaves at least a share `top_p` of each row's mass.

    Bisection over the bit patterns of the floats in [0, 1], which are ordered as the floats are:
    exact after 30 rounds, and no sort of the vocabulary.
    """
    wanted = top_p * jnp.sum(weights, axis=-1)

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low + 1) // 2
        threshold = lax.bitcast_convert_type(middle, jnp.float32)
        enough = jnp.sum(jnp.where(weights >= threshold[:, None], weights, 0.0), axis=-1) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    low = jnp.zeros(weights.shape[:1], jnp.int32)
    high = jnp.full_like(low, lax.bitcast_convert_type(jnp.float32(1), jnp.int32))
    low, _ = lax.fori_loop(0, 30, halve, (low, high))
    return lax.bitcast_convert_type(low, jnp.float32)


def choose(
    weights: Float[Array, "rows vocab"], uniform: Float[Array, "rows"]
) -> tuple[Int[Array, "rows"], Float[Array, "rows"]]:
    """Inverse-CDF draws: the token where a row's cumulative weight first exceeds uniform * total.

    One number in [0, 1) a row instead of one a token. Sums run over blocks of the vocabulary
    first, so that only one block a row is scanned token by token.

    Returns:
      The tokens and the rows' total weights.
    """
    rows, vocab = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -vocab % BLOCKS))).reshape(rows, BLOCKS, -1)
    # What follows is small: every device that has a part of a row's vocabulary does it whole.
    ends = jnp.cumsum(shard(jnp.sum(blocks, axis=-1), "batch", None), axis=-1)
    total = ends[:, -1]
    target = uniform * total
    block = jnp.sum(ends <= target[:, None], axis=-1)
    before = jnp.where(
        block > 0, jnp.take_along_axis(ends, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0
    )
    inside = jnp.cumsum(jnp.take_along_axis(blocks, block[:, None, None], 1)[:, 0], axis=-1)
    # A block's own cumulative sum may round below its share of `ends`; stay inside it.
    rest = jnp.minimum(target - before, jnp.nextafter(inside[:, -1], 0.0))
    token = block * blocks.shape[-1] + jnp.sum(inside <= rest[:, None], axis=-1)
    return token.astype(jnp.int32), total
