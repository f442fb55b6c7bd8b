"""The parts of a T5Gemma layer that a T5's has not: norm, embedding, rotary positions, attention.

Gemma 2 (arXiv 2408.00118), T5Gemma (arXiv 2504.06225), rotary positions (arXiv 2104.09864), grouped
queries (arXiv 2305.13245). Shapes in comments: B prompts, R rows (completions; R = B K where K
completions share a prompt), Q query and S key positions, E embedding, H heads of queries, N heads
of keys and values, G = H / N, D head width.
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
from po_jax.t5gemma.config import StackConfig

ACTIVATIONS = ("gelu", "linear")  # of T5's feed-forward layer
EPSILON = 1e-6


def softcap(x, cap):
    """cap tanh(x / cap); x itself where there is no cap."""
    return x if cap is None else cap * jnp.tanh(x / cap)


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, times one more than a scale that begins at 0."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32)
        x = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPSILON)
        scale = partitioning.param_with_axes(
            "scale", nn.initializers.zeros, (x.shape[-1],), jnp.float32, axes=("embed",)
        )
        scale = jnp.broadcast_to(1.0 + scale.astype(jnp.float32), x.shape)
        return (x * scale).astype(self.dtype)


class Embed(nn.Module):
    """A token embedding, scaled by sqrt(E); the decoder's is its output head too, unscaled."""

    vocab_size: int
    features: int
    dtype: jnp.dtype

    def setup(self):
        self.embedding = partitioning.param_with_axes(
            "embedding",
            nn.initializers.normal(stddev=self.features**-0.5),
            (self.vocab_size, self.features),
            jnp.float32,
            axes=("vocab", "embed"),
        )

    def __call__(self, tokens):
        rows = jnp.take(self.embedding, tokens, axis=0, mode="clip").astype(self.dtype)
        # The factor is rounded to the dtype first, as in training: 48 and not 47.99 in bfloat16.
        return shard(rows * jnp.asarray(self.features**0.5, self.dtype), "batch", "length", "embed")

    def attend(self, x):
        """Logits over the vocabulary, float32: x @ embedding.T."""
        return product(x, transposed(self.embedding.astype(self.dtype)), 1, jnp.float32)


def angles(positions, width, theta):
    """Cosine and sine, float32, [Q, 1, D / 2] each, by which heads at these positions turn."""
    frequencies = 1.0 / np.float32(theta) ** (np.arange(0, width, 2, dtype=np.float32) / width)
    turn = positions.astype(jnp.float32)[:, None, None] * frequencies[None, None]
    return jnp.cos(turn), jnp.sin(turn)


def rotated(x, angles):
    """Heads [R, Q, H, D], whose halves are turned against each other; float32 inside."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cosine, sine = (jnp.broadcast_to(part, first.shape) for part in angles)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class Attention(nn.Module):
    """Attention of grouped queries with soft-capped logits."""

    stack: StackConfig
    split_kernels: bool
    dropout_rate: float
    dtype: jnp.dtype

    def setup(self):
        cfg = self.stack
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        heads = ("heads", "kv") if self.split_kernels else ("joined_kv",)
        into = functools.partial(Dense, axes=("embed", *heads), dtype=self.dtype, kernel_init=init)
        self.query = into((cfg.num_heads, cfg.head_dim))
        self.key = into((cfg.num_kv_heads, cfg.head_dim))
        self.value = into((cfg.num_kv_heads, cfg.head_dim))
        self.out = Dense((cfg.emb_dim,), (*heads, "embed"), self.dtype, init, input_axes=2)

    def keys_values(self, x, angles=None):
        """The keys, turned where there are angles, and values of [., S, E], each [., N, S, D]."""
        keys, values = self.key(x), self.value(x)
        if angles is not None:
            keys = rotated(keys, angles)
        return tuple(
            shard(jnp.swapaxes(heads, -3, -2), "batch", "heads", "length", "kv")
            for heads in (keys, values)
        )

    def __call__(self, x, keys, values, mask_bias, angles=None, *, deterministic):
        """Attends from [R, Q, E] to keys and values [B, N, S, D].

        Where R = B K, the K rows of a prompt attend to its one copy of keys and values.
        `mask_bias` broadcasts against [B, 1, K Q, S]; `angles` turn the queries.
        """
        cfg = self.stack
        rows, queries, _ = x.shape
        batch, heads, _, width = keys.shape
        query = self.query(x)
        if angles is not None:
            query = rotated(query, angles)
        query = query.reshape(batch, -1, heads, cfg.num_heads // heads, width)
        logits = jnp.einsum("bqngd,bnsd->bngqs", query, keys, preferred_element_type=jnp.float32)
        logits = softcap(logits * cfg.query_scalar**-0.5, cfg.attention_softcap)
        weights = jax.nn.softmax(logits + mask_bias[:, None], axis=-1).astype(self.dtype)
        weights = dropout(self, weights, self.dropout_rate, deterministic)
        mixed = jnp.einsum("bngqs,bnsd->bqngd", weights, values)
        return self.out(mixed.reshape(rows, queries, cfg.num_heads, width))
