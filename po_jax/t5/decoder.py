"""The decoder of a T5, all positions at once or one at a time against a cache.

Shape letters: see `layers.py`.
"""

from typing import Any

import flax
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from po_jax.partitioning import shard
from po_jax.t5 import layers, stack
from po_jax.t5.config import T5Config
from po_jax.t5.layers import dropout


@flax.struct.dataclass
class Cache:
    """What one decoder position needs of the prompt and of the positions before it.

    With scanned layers every array of `cross` and `own` has a leading layer axis; otherwise
    they are tuples over layers.

    Attributes:
      cross: keys and values of the encoded prompts, [B, H, S, D], computed once.
      cross_bias: [B, 1, 1, S]; masks the padding of the prompts.
      own: keys and values of the R = B K rows so far, [R, H, T, D].
      index: position that the next token takes.
    """

    cross: Any
    cross_bias: jax.Array
    own: Any
    index: jax.Array


@flax.struct.dataclass
class DecoderContext:
    """What all layers of a decoder share. `relative_bias` is None where each layer has its own."""

    encoded: jax.Array | None
    self_bias: jax.Array
    relative_bias: jax.Array | None
    cross_bias: jax.Array
    index: jax.Array | None = None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoded prompt, and feed-forward."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.pre_self_attention_layer_norm = layers.LayerNorm(cfg.dtype)
        self.pre_cross_attention_layer_norm = layers.LayerNorm(cfg.dtype)
        self.pre_mlp_layer_norm = layers.LayerNorm(cfg.dtype)
        self.self_attention = stack.attention(cfg)
        self.encoder_decoder_attention = stack.attention(cfg)
        self.mlp = stack.feed_forward(cfg)
        if not cfg.shared_relative_bias:
            self.relpos_bias = stack.relative_bias(cfg, bidirectional=False)

    def cross_keys_values(self, carry, _, encoded, __):
        """Keys and values of the encoded prompts, in the shape a scan over layers wants."""
        return carry, self.encoder_decoder_attention.keys_values(encoded)

    def __call__(self, carry, cached, context, deterministic):
        """Runs all positions, or the one at `context.index` against a cache.

        Args:
          carry: the activations [R, Q, E], and the own keys and values of a `Cache` (of this
            layer, or of all layers where they are scanned); None without a cache.
          cached: the prompt's keys and values of this layer and, where layers are scanned, the
            layer's number; None without a cache.
          context: what the layers share.
          deterministic: without dropout.

        Returns:
          The new carry, and None for the scan.
        """
        cfg = self.config
        x, own = carry
        x = shard(x, "batch", "length", "embed")
        y = self.pre_self_attention_layer_norm(x)
        keys_values = self.self_attention.keys_values(y)
        if cached is None:
            cross = self.encoder_decoder_attention.keys_values(context.encoded)
        else:
            cross, layer = cached
            own, keys_values = append(own, keys_values, layer, context.index)
        bias = context.relative_bias
        if bias is None:
            length = keys_values[0].shape[-2]
            if cached is None:
                bias = self.relpos_bias(length, length)
            else:
                bias = self.relpos_bias.row(context.index, length)
        y = self.self_attention(
            y, *keys_values, context.self_bias, bias, deterministic=deterministic
        )
        x = shard(x + dropout(self, y, cfg.dropout_rate, deterministic), "batch", "length", "embed")
        y = self.pre_cross_attention_layer_norm(x)
        y = self.encoder_decoder_attention(
            y, *cross, context.cross_bias, deterministic=deterministic
        )
        x = shard(x + dropout(self, y, cfg.dropout_rate, deterministic), "batch", "length", "embed")
        y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
        x = x + dropout(self, y, cfg.dropout_rate, deterministic)
        return (shard(x, "batch", "length", "embed"), own), None


def append(own, new, layer, place):
    """Writes a position into a cache; returns the cache and this layer's part of it.

    Written first and read afterwards, so that the compiler updates the buffer in place; `layer`
    selects from a cache of all layers, and is None where each layer has a cache to itself.
    """
    if layer is not None:
        new = jax.tree.map(lambda position: position[None], new)
    start = (() if layer is None else (layer,)) + (0, 0, place, 0)
    own = jax.tree.map(lambda c, n: lax.dynamic_update_slice(c, n, start), own, new)
    if layer is None:
        return own, own
    return own, jax.tree.map(lambda c: lax.dynamic_index_in_dim(c, layer, 0, False), own)


class Decoder(nn.Module):
    """The stack of decoder layers, up to the norm before the output head."""

    config: T5Config

    def setup(self):
        cfg = self.config
        if cfg.shared_relative_bias:
            self.relpos_bias = stack.relative_bias(cfg, bidirectional=False)
        layer = stack.layer_class(
            cfg,
            DecoderLayer,
            cfg.num_decoder_layers,
            (False, True),
            ["__call__", "cross_keys_values"],
        )
        if cfg.scan_layers:
            self.decoder = layer(cfg)
        else:
            self.layers = [layer(cfg) for _ in range(cfg.num_decoder_layers)]
        self.decoder_norm = layers.LayerNorm(cfg.dtype)
        if not cfg.logits_via_embedding:
            self.logits_dense = layers.Dense(
                (cfg.vocab_size,),
                ("embed", "vocab"),
                cfg.dtype,
                nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
                output_dtype=jnp.dtype(jnp.float32),
            )

    def _stack(self, x, cache, context, deterministic):
        """All layers and the final norm; returns the states and the cache's new own part."""
        cfg = self.config
        own = None if cache is None else cache.own
        if cfg.scan_layers:
            cached = None
            if cache is not None:
                cached = (cache.cross, jnp.arange(cfg.num_decoder_layers))
            (x, own), _ = self.decoder((x, own), cached, context, deterministic)
        else:
            layer_own = [None] * cfg.num_decoder_layers if own is None else list(own)
            for i, layer in enumerate(self.layers):
                cached = None if cache is None else (cache.cross[i], None)
                (x, layer_own[i]), _ = layer((x, layer_own[i]), cached, context, deterministic)
            own = tuple(layer_own)
        return dropout(self, self.decoder_norm(x), cfg.dropout_rate, deterministic), own

    def __call__(self, x, encoded, self_bias, cross_bias, deterministic):
        x = dropout(self, x, self.config.dropout_rate, deterministic)
        shared = None
        if self.config.shared_relative_bias:
            shared = self.relpos_bias(x.shape[1], x.shape[1])
        context = DecoderContext(encoded, self_bias, shared, cross_bias)
        return self._stack(x, None, context, deterministic)[0]

    def cross_keys_values(self, encoded):
        if self.config.scan_layers:
            return self.decoder.cross_keys_values((), None, encoded, True)[1]
        return tuple(layer.cross_keys_values((), None, encoded, True)[1] for layer in self.layers)

    def step(self, x, cache):
        length = jax.tree.leaves(cache.own)[0].shape[-2]
        shared = None
        if self.config.shared_relative_bias:
            shared = self.relpos_bias.row(cache.index, length)
        self_bias = stack.mask_bias(jnp.arange(length)[None, None] <= cache.index)
        context = DecoderContext(None, self_bias, shared, cache.cross_bias, cache.index)
        x, own = self._stack(x, cache, context, True)
        return x, cache.replace(own=own, index=cache.index + 1)
