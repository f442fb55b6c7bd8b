"""The parts of a T5 layer: linear maps, norm, embedding, relative bias, attention, feed-forward.

Exploring the Limits of Transfer Learning (arXiv 1910.10683), section 2.1; gated feed-forward from
arXiv 2002.05202. Parameter names, shapes, logical axes and initial scales are T5X's. Shapes in
comments: B prompts, R rows (completions; R = B K where K completions share a prompt), Q query and
S key positions, E embedding, H heads, D head width, F feed-forward width.
"""

import functools
import math
import operator

from flax import linen as nn
from flax.linen import partitioning
import jax
from jax import lax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
import numpy as np

from po_jax.partitioning import shard
from po_jax.t5 import fused_attention

MASKED = -1e10  # Added to the logits of positions that must not be attended to.


def dropout(module, x, rate, deterministic):
    """T5's dropout: one mask for all positions of a sequence."""
    if deterministic or rate == 0.0:
        return x
    shape = (*x.shape[:-2], 1, x.shape[-1])
    keep = jax.random.bernoulli(module.make_rng("dropout"), 1.0 - rate, shape)
    return jnp.where(keep, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros((), x.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(x, kernel, axes, dtype):
    """Contracts the last `axes` axes of x with the first of the kernel, accumulating in `dtype`.

    Differentiated by hand so that both cotangents leave their products with their axes in order:
    JAX's rule transposes the kernel's afterwards, and a CPU then takes twice as long for it.
    """
    contracted = (tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes)))
    return lax.dot_general(x, kernel, (contracted, ((), ())), preferred_element_type=dtype)


def _product_forward(x, kernel, axes, dtype):
    return product(x, kernel, axes, dtype), (x, kernel)


def _product_backward(axes, dtype, operands, cotangent):
    x, kernel = operands
    leading = tuple(range(x.ndim - axes))
    features = (tuple(range(len(leading), cotangent.ndim)), tuple(range(axes, kernel.ndim)))
    of_x = lax.dot_general(cotangent, kernel, (features, ((), ())), preferred_element_type=dtype)
    of_kernel = lax.dot_general(
        x, cotangent, ((leading, leading), ((), ())), preferred_element_type=dtype
    )
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


product.defvjp(_product_forward, _product_backward)


class Dense(nn.Module):
    """A linear map without bias over the last `input_axes` axes of its input.

    Attributes:
      features: sizes of the output axes.
      axes: logical axis names of the stored kernel.
      dtype: of the operands.
      kernel_init: initialiser of a kernel with one input and one output axis.
      input_axes: how many trailing axes are contracted.
      output_dtype: dtype the products are accumulated and returned in; `dtype` by default.
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    dtype: jnp.dtype
    kernel_init: nn.initializers.Initializer
    input_axes: int = 1
    output_dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x):
        inputs = x.shape[x.ndim - self.input_axes :]
        joined = (math.prod(inputs), math.prod(self.features))
        # A kernel with joined axes (T5X's examples/t5) is stored flat, one with split axes
        # (scalable_t5) in full; the initial values are the same numbers either way.
        stored = joined if len(self.axes) == 2 else (*inputs, *self.features)
        kernel = partitioning.param_with_axes(
            "kernel",
            lambda key: self.kernel_init(key, joined, jnp.float32).reshape(stored),
            axes=self.axes,
        )
        kernel = kernel.astype(self.dtype).reshape(*inputs, *self.features)
        dtype = self.output_dtype or self.dtype
        y = product(x.astype(self.dtype), kernel, self.input_axes, dtype)
        return checkpoint_name(y, "product")  # What `remat_policy="minimal"` keeps.


@jax.custom_vjp
def transposed(table):
    """A matrix's transpose; its cotangent is transposed after the product that made it."""
    return table.T


# Without the barrier XLA transposes the operands of that product, which are far larger.
transposed.defvjp(
    lambda table: (table.T, None), lambda _, cotangent: (lax.optimization_barrier(cotangent).T,)
)


class LayerNorm(nn.Module):
    """Root-mean-square norm in float32: no mean is subtracted, no bias added."""

    dtype: jnp.dtype
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x):
        x = x.astype(jnp.float32)
        x = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        scale = partitioning.param_with_axes(
            "scale", nn.initializers.ones, (x.shape[-1],), jnp.float32, axes=("embed",)
        )
        return x.astype(self.dtype) * jnp.broadcast_to(scale.astype(self.dtype), x.shape)


class Embed(nn.Module):
    """The token embedding, which T5 1.0 also uses as its output head."""

    vocab_size: int
    features: int
    dtype: jnp.dtype

    def setup(self):
        self.embedding = partitioning.param_with_axes(
            "embedding",
            nn.initializers.normal(stddev=1.0),
            (self.vocab_size, self.features),
            jnp.float32,
            axes=("vocab", "embed"),
        )

    def __call__(self, tokens):
        rows = jnp.take(self.embedding, tokens, axis=0, mode="clip").astype(self.dtype)
        return shard(rows, "batch", "length", "embed")

    def attend(self, x):
        """Logits over the vocabulary, float32: x @ embedding.T / sqrt(features)."""
        x = (x * jnp.asarray(self.features**-0.5, x.dtype)).astype(self.dtype)
        return product(x, transposed(self.embedding.astype(self.dtype)), 1, jnp.float32)


def relative_buckets(relative, *, bidirectional, num_buckets, max_distance):
    """Bucket of each relative position (key minus query): exact up to a point, then logarithmic.

    arXiv 1910.10683, section 2.1. A NumPy function: buckets are constants of the program.
    """
    distance = -np.asarray(relative)
    offset = np.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = np.where(distance < 0, num_buckets, 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(distance, 0)
    exact = num_buckets // 2
    # float32 and its epsilon, because bucket borders must fall where T5's own fall.
    ratio = distance.astype(np.float32) / exact + np.finfo(np.float32).eps
    log_scale = (num_buckets - exact) / np.log(max_distance / exact)
    large = np.minimum(
        exact + (np.log(ratio) * np.float32(log_scale)).astype(np.int32), num_buckets - 1
    )
    return offset + np.where(distance < exact, distance, large)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attention_weights(query, keys, mask_bias, relative_bias, dtype):
    """softmax(query keys^T + mask_bias + relative_bias) over the keys, [B, H, Q, S], in `dtype`.

    Computed in float32. Differentiated by hand, except in the mask: the backward pass needs the
    weights alone, in the `dtype` that they are used in, where JAX's rules keep the float32 logits
    as well and read float32 cotangents: twice the memory, in the largest arrays that a layer has.

    Args:
      query: [B, H, Q, D].
      keys: [B, H, S, D].
      mask_bias: broadcasts against the weights; 0 or `MASKED`.
      relative_bias: [1, H, Q, S], or None.
      dtype: of the weights.
    """
    logits = jnp.einsum("bhqd,bhkd->bhqk", query, keys, preferred_element_type=jnp.float32)
    bias = mask_bias if relative_bias is None else mask_bias + relative_bias
    return jax.nn.softmax(logits + bias, axis=-1).astype(dtype)


def _weights_forward(query, keys, mask_bias, relative_bias, dtype):
    weights = attention_weights(query, keys, mask_bias, relative_bias, dtype)
    no_values = None if relative_bias is None else ()  # Whether there is a bias, and no more.
    return weights, (query, keys, mask_bias, no_values, weights)


def _weights_backward(dtype, residuals, cotangent):
    query, keys, mask_bias, relative, weights = residuals
    # Without the barrier XLA keeps the float32 weights that these were rounded from.
    weights = lax.optimization_barrier(weights).astype(jnp.float32)
    cotangent = cotangent.astype(jnp.float32)
    mean = jnp.sum(weights * cotangent, axis=-1, keepdims=True)
    of_logits = (weights * (cotangent - mean)).astype(dtype)
    of_query = jnp.einsum("bhqk,bhkd->bhqd", of_logits, keys)
    of_keys = jnp.einsum("bhqk,bhqd->bhkd", of_logits, query)
    of_relative = None
    if relative is not None:
        # A product with ones. A plain sum XLA puts off to the end of the backward pass and takes
        # over all layers in one, for which a CPU needs a tenth of a step.
        of_relative = jnp.tensordot(
            jnp.ones((1, query.shape[0]), dtype),
            of_logits,
            axes=1,
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
    return of_query, of_keys, jnp.zeros_like(mask_bias), of_relative


attention_weights.defvjp(_weights_forward, _weights_backward)


class RelativeBias(nn.Module):
    """T5's relative position bias on the attention logits, one table of buckets a head."""

    num_heads: int
    num_buckets: int
    max_distance: int
    bidirectional: bool

    def setup(self):
        self.rel_embedding = partitioning.param_with_axes(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (self.num_heads, self.num_buckets),
            jnp.float32,
            axes=("heads", "relpos_buckets"),
        )

    def _by_distance(self, queries, keys):
        """[H, Q + S]: the bias at key - query = 1 - Q, ..., S."""
        buckets = relative_buckets(
            np.arange(1 - queries, keys + 1),
            bidirectional=self.bidirectional,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        one_hot = np.arange(self.num_buckets)[:, None] == buckets
        return self.rel_embedding.astype(jnp.float32) @ one_hot.astype(np.float32)

    def __call__(self, queries, keys):
        """[1, H, Q, S]: the bias between every query and every key position."""
        # The bias is constant along diagonals. Rows of length N = Q + S laid end to end and cut
        # at length N - 1 shift each row by one: no [Q, S] gather, and no scatter in its gradient.
        by_distance = self._by_distance(queries, keys)
        width = queries + keys
        flat = jnp.tile(by_distance, (1, queries))[:, queries - 1 :][:, : queries * (width - 1)]
        return flat.reshape(1, self.num_heads, queries, width - 1)[..., :keys]

    def row(self, query, keys):
        """[1, H, 1, S]: the bias of one query position, which may be traced, to all keys."""
        by_distance = self._by_distance(keys, keys)
        row = lax.dynamic_slice_in_dim(by_distance, keys - 1 - query, keys, axis=1)
        return row[None, :, None]


class Attention(nn.Module):
    """Multi-head attention; T5 folds the 1/sqrt(D) of the logits into the query's initial scale."""

    num_heads: int
    head_dim: int
    emb_dim: int
    split_kernels: bool
    dropout_rate: float
    dtype: jnp.dtype
    fused: bool = False

    def setup(self):
        normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        narrow = nn.initializers.variance_scaling(1.0 / self.head_dim, "fan_in", "normal")
        heads = ("heads", "kv") if self.split_kernels else ("joined_kv",)
        split = functools.partial(
            Dense, (self.num_heads, self.head_dim), ("embed", *heads), self.dtype
        )
        self.query = split(narrow)
        self.key = split(normal)
        self.value = split(normal)
        self.out = Dense((self.emb_dim,), (*heads, "embed"), self.dtype, normal, input_axes=2)

    def _heads_first(self, x):
        """[., S, H, D] to [., H, S, D], in which all products with keys and values are matrices."""
        return shard(jnp.swapaxes(x, -3, -2), "batch", "heads", "length", "kv")

    def keys_values(self, x):
        """The keys and values of a sequence [., S, E], each [., H, S, D]."""
        return self._heads_first(self.key(x)), self._heads_first(self.value(x))

    def __call__(self, x, keys, values, mask_bias, relative_bias=None, *, deterministic):
        """Attends from [R, Q, E] to keys and values [B, H, S, D].

        Where R = B K, the K rows of a prompt attend to its one copy of keys and values.
        `mask_bias` broadcasts against [B, H, K Q, S]; `relative_bias` is [1, H, K Q, S] or None.
        """
        rows, queries, _ = x.shape
        query = self.query(x).reshape(keys.shape[0], -1, self.num_heads, self.head_dim)
        query = self._heads_first(query)
        if self.fused and fused_attention.fits(query, keys, relative_bias):
            # T5 drops a key for all queries alike: its value may as well go.
            kept = jnp.ones((*keys.shape[:2], 1, keys.shape[2]), self.dtype)
            kept = dropout(self, kept, self.dropout_rate, deterministic)
            values = values * jnp.swapaxes(kept, -2, -1)
            mixed = fused_attention.attend(query, keys, values, mask_bias, relative_bias)
        else:
            weights = attention_weights(query, keys, mask_bias, relative_bias, self.dtype)
            weights = dropout(self, weights, self.dropout_rate, deterministic)
            mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, values)
        mixed = jnp.swapaxes(mixed, -3, -2)
        return self.out(mixed.reshape(rows, queries, self.num_heads, self.head_dim))


class FeedForward(nn.Module):
    """T5's feed-forward layer; two or more activations make a product of branches (gated)."""

    mlp_dim: int
    activations: tuple[str, ...]
    dropout_rate: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, *, deterministic):
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        branches = []
        for i, name in enumerate(self.activations):
            parameter = "wi" if len(self.activations) == 1 else f"wi_{i}"
            branch = Dense((self.mlp_dim,), ("embed", "mlp"), self.dtype, init, name=parameter)(x)
            branches.append(branch if name == "linear" else getattr(nn, name)(branch))
        hidden = functools.reduce(operator.mul, branches)
        hidden = dropout(self, hidden, self.dropout_rate, deterministic)
        hidden = shard(hidden, "batch", "length", "mlp")
        return Dense((x.shape[-1],), ("mlp", "embed"), self.dtype, init, name="wo")(hidden)
