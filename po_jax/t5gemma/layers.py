"""The parts of a T5Gemma layer that a T5's has not: norm, embedding, rotary positions, attention.

Gemma 2 (arXiv 2408.00118) and 3 (arXiv 2503.19786), T5Gemma (arXiv 2504.06225) and T5Gemma 2
(arXiv 2512.14856), rotary positions (arXiv 2104.09864), grouped queries (arXiv 2305.13245). Shapes
in comments: B prompts, R rows (completions; R = B K where K completions share a prompt), Q query
and S key positions, E embedding, H heads of queries, N heads of keys and values, G = H / N, D head
width.
"""

import functools

from flax import linen as nn
from flax.linen import partitioning
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from po_jax.partitioning import shard
from po_jax.t5.layers import Dense, dropout, product, transposed
from po_jax.t5gemma.config import StackConfig, T5GemmaConfig

ACTIVATIONS = ("gelu", "linear")  # of T5's feed-forward layer
EPSILON = 1e-6


def softcap(x, cap):
    """cap tanh(x / cap); x itself where there is no cap."""
    return x if cap is None else cap * jnp.tanh(x / cap)


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, times one more than a scale that begins at 0."""

    dtype: jnp.dtype
    axis: str = "embed"

    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32)
        x = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPSILON)
        scale = partitioning.param_with_axes(
            "scale", nn.initializers.zeros, (x.shape[-1],), jnp.float32, axes=(self.axis,)
        )
        scale = jnp.broadcast_to(1.0 + scale.astype(jnp.float32), x.shape)
        return (x * scale).astype(self.dtype)


class Embed(nn.Module):
    """A token embedding, scaled by sqrt(E); the decoder's is its output head too, unscaled.

    Attributes:
      vocab_size: V.
      features: E.
      dtype: of the activations.
      end_of_image: id of the token whose input is a vector beside the table; None for none.
    """

    vocab_size: int
    features: int
    dtype: jnp.dtype
    end_of_image: int | None = None

    def setup(self):
        self.embedding = partitioning.param_with_axes(
            "embedding",
            nn.initializers.normal(stddev=self.features**-0.5),
            (self.vocab_size, self.features),
            jnp.float32,
            axes=("vocab", "embed"),
        )
        if self.end_of_image is not None:
            self.image_end = partitioning.param_with_axes(
                "image_end", nn.initializers.zeros, (self.features,), jnp.float32, axes=("embed",)
            )

    def __call__(self, tokens):
        rows = jnp.take(self.embedding, tokens, axis=0, mode="clip").astype(self.dtype)
        # The factor is rounded to the dtype first, as in training: 48 and not 47.99 in bfloat16.
        rows = rows * jnp.asarray(self.features**0.5, self.dtype)
        if self.end_of_image is not None:
            ends = (tokens == self.end_of_image)[..., None]
            rows = jnp.where(ends, self.image_end.astype(self.dtype), rows)
        return shard(rows, "batch", "length", "embed")

    def attend(self, x):
        """Logits over the vocabulary, float32: x @ embedding.T."""
        return product(x, transposed(self.embedding.astype(self.dtype)), 1, jnp.float32)


def angles(positions, frequencies):
    """Cosine and sine, float32, [Q, 1, D / 2] each, by which heads at these positions turn."""
    turn = positions.astype(jnp.float32)[:, None, None] * frequencies[None, None]
    return jnp.cos(turn), jnp.sin(turn)


def rotated(x, angles):
    """Heads [R, Q, H, D], whose halves are turned against each other; float32 inside."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cosine, sine = (jnp.broadcast_to(part, first.shape) for part in angles)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class Attention(nn.Module):
    """Attention of grouped queries with soft-capped logits, to one or several sources at once."""

    config: T5GemmaConfig
    stack: StackConfig

    def setup(self):
        cfg, dtype = self.stack, self.config.dtype
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        heads = ("heads", "kv") if self.config.scan_layers else ("joined_kv",)
        into = functools.partial(Dense, axes=("embed", *heads), dtype=dtype, kernel_init=init)
        self.query = into((cfg.num_heads, cfg.head_dim))
        self.key = into((cfg.num_kv_heads, cfg.head_dim))
        self.value = into((cfg.num_kv_heads, cfg.head_dim))
        self.out = Dense((cfg.emb_dim,), (*heads, "embed"), dtype, init, input_axes=2)
        if self.config.normed_heads:
            self.query_norm, self.key_norm = (RMSNorm(dtype, "kv") for _ in range(2))

    def keys_values(self, x, angles=None):
        """The keys, turned where there are angles, and values of [., S, E], each [., N, S, D]."""
        keys, values = self.key(x), self.value(x)
        if self.config.normed_heads:
            keys = self.key_norm(keys)
        if angles is not None:
            keys = rotated(keys, angles)
        return tuple(
            shard(jnp.swapaxes(heads, -3, -2), "batch", "heads", "length", "kv")
            for heads in (keys, values)
        )

    def __call__(self, x, sources, angles=None, *, deterministic):
        """Attends from [R, Q, E] to all sources, as if they were one.

        Args:
          x: what queries are made of.
          sources: (keys, values, bias) each: keys and values [r, N, S, D], r = R of each row its
            own, r = B of prompts, whose K = R / B rows attend to one copy; bias broadcasts against
            [r, 1, R / r Q, S].
          angles: by which the queries turn, where they do.
          deterministic: without dropout.
        """
        cfg, (rows, queries, _) = self.stack, x.shape
        query = self.query(x)
        if self.config.normed_heads:
            query = self.query_norm(query)
        if angles is not None:
            query = rotated(query, angles)
        heads = (cfg.num_kv_heads, cfg.num_heads // cfg.num_kv_heads, cfg.head_dim)
        batch = min(len(keys) for keys, _, _ in sources)

        def logits(keys, bias):
            own = query.reshape(len(keys), -1, *heads)
            x = jnp.einsum("bqngd,bnsd->bngqs", own, keys, preferred_element_type=jnp.float32)
            x = softcap(x * cfg.query_scalar**-0.5, cfg.attention_softcap) + bias[:, None]
            return _by_prompt(x, batch)

        weights = jnp.concatenate([logits(keys, bias) for keys, _, bias in sources], axis=-1)
        weights = jax.nn.softmax(weights, axis=-1).astype(self.config.dtype)
        weights = dropout(self, weights, self.config.dropout_rate, deterministic)
        ends = np.cumsum([keys.shape[-2] for keys, _, _ in sources])[:-1]
        mixed = sum(
            jnp.einsum("bngqs,bnsd->bqngd", _by_row(own, len(values)), values).reshape(
                rows, queries, cfg.num_heads, cfg.head_dim
            )
            for own, (_, values, _) in zip(jnp.split(weights, ends, axis=-1), sources, strict=True)
        )
        return self.out(mixed)


def _by_prompt(x, batch):
    """[R, N, G, Q, S] as [B, N, G, K Q, S]."""
    rows, *heads, queries, length = x.shape
    x = jnp.moveaxis(x.reshape(batch, rows // batch, *heads, queries, length), 1, 3)
    return x.reshape(batch, *heads, -1, length)


def _by_row(x, rows):
    """[B, N, G, K Q, S] as [R, N, G, Q, S]."""
    batch, *heads, _, length = x.shape
    x = jnp.moveaxis(x.reshape(batch, *heads, rows // batch, -1, length), 3, 1)
    return x.reshape(rows, *heads, -1, length)
