"""The T5 network: encoder, decoder and the two ways to run a decoder.

`decode` runs all target positions at once (training, scoring); `prefill` and `extend` run one
position at a time against a cache (sampling). Both give the same logits. Shape letters: see
`layers.py`. Parameter trees are those of T5X's `examples/t5` and, with `scan_layers`, of
`examples/scalable_t5`.
"""

from typing import Any

import flax
from flax import linen as nn
from flax.linen import partitioning
import jax
from jax import lax
import jax.numpy as jnp

from po_jax.t5 import layers
from po_jax.t5.config import T5Config
from po_jax.t5.layers import MASKED, dropout, shard


@flax.struct.dataclass
class Cache:
    """What one decoder position needs of the prompt and of the positions before it.

    With scanned layers every array of `cross` and `own` has a leading layer axis; otherwise
    they are tuples over layers.

    Attributes:
      cross: keys and values of the encoded prompts, [B, H, D, S], computed once.
      cross_bias: [B, 1, 1, S]; masks the padding of the prompts.
      own: keys and values of the R = B K rows so far, [R, H, D, T].
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


def _mask_bias(allowed):
    """[., Q, S] booleans to an additive bias [., 1, Q, S]."""
    return jnp.where(allowed, 0.0, MASKED).astype(jnp.float32)[..., None, :, :]


def _attention(cfg, name):
    return layers.Attention(
        num_heads=cfg.num_heads,
        head_dim=cfg.head_dim,
        emb_dim=cfg.emb_dim,
        split_kernels=cfg.scan_layers,
        dropout_rate=cfg.dropout_rate,
        dtype=cfg.dtype,
        name=name,
    )


def _feed_forward(cfg):
    return layers.FeedForward(
        cfg.mlp_dim, cfg.mlp_activations, cfg.dropout_rate, cfg.dtype, name="mlp"
    )


def _relative_bias(cfg, bidirectional):
    return layers.RelativeBias(
        cfg.num_heads,
        cfg.relative_buckets,
        cfg.relative_max_distance,
        bidirectional,
        name="relpos_bias",
    )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each after a norm and inside a residual."""

    config: T5Config

    @nn.compact
    def __call__(self, x, mask_bias, relative_bias, deterministic):
        cfg = self.config
        x = shard(x, "batch", "length", "embed")
        if relative_bias is None:
            relative_bias = _relative_bias(cfg, True)(x.shape[1], x.shape[1])
        y = layers.LayerNorm(cfg.dtype, name="pre_attention_layer_norm")(x)
        attention = _attention(cfg, "attention")
        y = attention(
            y, *attention.keys_values(y), mask_bias + relative_bias, deterministic=deterministic
        )
        x = shard(x + dropout(self, y, cfg.dropout_rate, deterministic), "batch", "length", "embed")
        y = layers.LayerNorm(cfg.dtype, name="pre_mlp_layer_norm")(x)
        y = _feed_forward(cfg)(y, deterministic=deterministic)
        x = x + dropout(self, y, cfg.dropout_rate, deterministic)
        return shard(x, "batch", "length", "embed"), None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoded prompt, and feed-forward."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.pre_self_attention_layer_norm = layers.LayerNorm(cfg.dtype)
        self.pre_cross_attention_layer_norm = layers.LayerNorm(cfg.dtype)
        self.pre_mlp_layer_norm = layers.LayerNorm(cfg.dtype)
        self.self_attention = _attention(cfg, None)
        self.encoder_decoder_attention = _attention(cfg, None)
        self.mlp = layers.FeedForward(cfg.mlp_dim, cfg.mlp_activations, cfg.dropout_rate, cfg.dtype)
        if cfg.relative_bias == "per_layer":
            self.relpos_bias = layers.RelativeBias(
                cfg.num_heads, cfg.relative_buckets, cfg.relative_max_distance, False
            )

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
            own, keys_values = _append(own, keys_values, layer, context.index)
        bias = context.relative_bias
        if bias is None:
            length = keys_values[0].shape[-1]
            if cached is None:
                bias = self.relpos_bias(length, length)
            else:
                bias = self.relpos_bias.row(context.index, length)
        y = self.self_attention(
            y, *keys_values, context.self_bias + bias, deterministic=deterministic
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


def _append(own, new, layer, index):
    """Writes a position into a cache; returns the cache and this layer's part of it.

    Written first and read afterwards, so that the compiler updates the buffer in place; `layer`
    selects from a cache of all layers, and is None where each layer has a cache to itself.
    """
    if layer is not None:
        new = jax.tree.map(lambda position: position[None], new)
    start = (() if layer is None else (layer,)) + (0, 0, 0, index)
    own = jax.tree.map(lambda c, n: lax.dynamic_update_slice(c, n, start), own, new)
    if layer is None:
        return own, own
    return own, jax.tree.map(lambda c: lax.dynamic_index_in_dim(c, layer, 0, False), own)


def _layer_class(cfg, layer, length, broadcast, methods):
    """The layer, rematerialised and scanned as the configuration says.

    A scanned layer takes its carry, then `len(broadcast)` arguments of which those marked False
    have a layer axis, then the static `deterministic`.
    """
    if cfg.remat_policy != "none":
        minimal = jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims
        layer = nn.remat(
            layer,
            prevent_cse=not cfg.scan_layers,
            policy=minimal if cfg.remat_policy == "minimal" else None,
            static_argnums=(len(broadcast) + 2,),
            methods=["__call__"],
        )
    if cfg.scan_layers:
        layer = partitioning.scan_with_axes(
            layer,
            variable_axes={"params": 1},
            split_rngs={"params": True, "dropout": True},
            in_axes=(*(nn.broadcast if b else 0 for b in broadcast), nn.broadcast),
            length=length,
            axis_name="layers",
            methods=methods,
        )
    return layer


class Encoder(nn.Module):
    """The stack of encoder layers."""

    config: T5Config

    @nn.compact
    def __call__(self, x, mask_bias, deterministic):
        cfg = self.config
        x = dropout(self, x, cfg.dropout_rate, deterministic)
        shared = None
        if cfg.relative_bias == "shared":
            shared = _relative_bias(cfg, True)(x.shape[1], x.shape[1])
        layer = _layer_class(cfg, EncoderLayer, cfg.num_encoder_layers, (True, True), ["__call__"])
        if cfg.scan_layers:
            x, _ = layer(cfg, name="encoder")(x, mask_bias, shared, deterministic)
        else:
            for i in range(cfg.num_encoder_layers):
                x, _ = layer(cfg, name=f"layers_{i}")(x, mask_bias, shared, deterministic)
        x = layers.LayerNorm(cfg.dtype, name="encoder_norm")(x)
        return dropout(self, x, cfg.dropout_rate, deterministic)


class Decoder(nn.Module):
    """The stack of decoder layers, up to the norm before the output head."""

    config: T5Config

    def setup(self):
        cfg = self.config
        if cfg.relative_bias == "shared":
            self.relpos_bias = layers.RelativeBias(
                cfg.num_heads, cfg.relative_buckets, cfg.relative_max_distance, False
            )
        layer = _layer_class(
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
        if self.config.relative_bias == "shared":
            shared = self.relpos_bias(x.shape[1], x.shape[1])
        context = DecoderContext(encoded, self_bias, shared, cross_bias)
        return self._stack(x, None, context, deterministic)[0]

    def cross_keys_values(self, encoded):
        if self.config.scan_layers:
            return self.decoder.cross_keys_values((), None, encoded, True)[1]
        return tuple(layer.cross_keys_values((), None, encoded, True)[1] for layer in self.layers)

    def step(self, x, cache):
        length = jax.tree.leaves(cache.own)[0].shape[-1]
        shared = None
        if self.config.relative_bias == "shared":
            shared = self.relpos_bias.row(cache.index, length)
        self_bias = _mask_bias(jnp.arange(length)[None, None] <= cache.index)
        context = DecoderContext(None, self_bias, shared, cache.cross_bias, cache.index)
        x, own = self._stack(x, cache, context, True)
        return x, cache.replace(own=own, index=cache.index + 1)


class Transformer(nn.Module):
    """An encoder-decoder T5 (arXiv 1910.10683) with T5X's parameter names.

    Token 0 is padding, and the decoder's first input. Dropout needs `deterministic=False` and a
    `dropout` key. Methods are called through `apply(..., method="encode")`.
    """

    config: T5Config

    def setup(self):
        cfg = self.config
        self.token_embedder = layers.Embed(cfg.vocab_size, cfg.emb_dim, cfg.dtype)
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)

    @property
    def scan_layers(self):
        """T5X's state initialiser asks the module for this."""
        return self.config.scan_layers

    def encode(self, tokens, segment_ids=None, *, deterministic=True):
        """Encodes prompts [B, S] to [B, S, E]; packed ones attend within their segment only."""
        allowed = (tokens > 0)[:, None, :]
        if segment_ids is not None:
            allowed = allowed & (segment_ids[:, :, None] == segment_ids[:, None, :])
        return self.encoder(self.token_embedder(tokens), _mask_bias(allowed), deterministic)

    def hidden(
        self,
        encoded,
        encoder_mask,
        decoder_input_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        *,
        deterministic=True,
    ):
        """Decoder states [R, T, E] before the head, all target positions at once.

        Args:
          encoded: [B, S, E].
          encoder_mask: [B, S], true on tokens of the prompt.
          decoder_input_tokens: [R, T], the targets shifted right; R = B K for K completions a
            prompt, those of one prompt next to each other.
          encoder_segment_ids, decoder_segment_ids: of packed examples (R = B), or None.
          deterministic: without dropout.
        """
        length = decoder_input_tokens.shape[1]
        # Targets are padded at the end only, which causality already hides from the rest.
        causal = jnp.tri(length, dtype=bool)[None]
        cross = encoder_mask[:, None, :]
        if decoder_segment_ids is not None:
            causal = causal & (decoder_segment_ids[:, :, None] == decoder_segment_ids[:, None, :])
            cross = cross & (decoder_segment_ids[:, :, None] == encoder_segment_ids[:, None, :])
        x = self.token_embedder(decoder_input_tokens)
        return self.decoder(x, encoded, _mask_bias(causal), _mask_bias(cross), deterministic)

    def logits(self, hidden):
        """The output head: decoder states [..., E] to float32 logits [..., V]."""
        if self.config.logits_via_embedding:
            logits = self.token_embedder.attend(hidden)
        else:
            logits = self.decoder.logits_dense(hidden)
        return shard(logits, "batch", *(["length"] * (logits.ndim - 2)), "vocab")

    def decode(self, *args, **kwargs):
        """`logits` of `hidden`, [R, T, V]; arguments are those of `hidden`."""
        return self.logits(self.hidden(*args, **kwargs))

    def prefill(self, encoded, encoder_mask, samples, max_length):
        """An empty cache for `samples` completions a prompt of at most `max_length` tokens."""
        cfg = self.config
        cross = self.decoder.cross_keys_values(encoded)

        def empty(keys_or_values):
            *layer_axis, batch, heads, width, _ = keys_or_values.shape
            zeros = jnp.zeros((*layer_axis, batch * samples, heads, width, max_length), cfg.dtype)
            names = ("batch", "heads", "kv", "length")
            return shard(zeros, *(["layers"] * len(layer_axis)), *names)

        return Cache(
            cross=cross,
            cross_bias=_mask_bias(encoder_mask[:, None, :]),
            own=jax.tree.map(empty, cross),
            index=jnp.zeros((), jnp.int32),
        )

    def extend(self, cache, tokens):
        """Feeds one token a row, [R], and returns the logits [R, V] of the next, and the cache."""
        x, cache = self.decoder.step(self.token_embedder(tokens[:, None]), cache)
        return self.logits(x)[:, 0], cache

    def __call__(
        self,
        encoder_input_tokens,
        decoder_input_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        *,
        deterministic=True,
    ):
        """Logits [B, T, V], float32, of T5X's encoder-decoder features."""
        encoded = self.encode(
            encoder_input_tokens, encoder_segment_ids, deterministic=deterministic
        )
        return self.decode(
            encoded,
            encoder_input_tokens > 0,
            decoder_input_tokens,
            encoder_segment_ids,
            decoder_segment_ids,
            deterministic=deterministic,
        )
