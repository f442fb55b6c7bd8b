"""The decoder of a T5Gemma, all positions at once or one at a time against a cache.

Shape letters: see `layers.py`. The cache is a T5's (`po_jax.t5.decoder.Cache`), of N heads of keys
and values. Of a sliding layer it keeps the positions in its window alone, but in a scanned stack;
the prompt it keeps whole in every layer.
"""

import flax
from flax import linen as nn
import jax
import jax.numpy as jnp

from po_jax.partitioning import shard
from po_jax.t5.decoder import Cache, append
from po_jax.t5.layers import FeedForward, dropout
from po_jax.t5.stack import layer_class, mask_bias
from po_jax.t5gemma import layers
from po_jax.t5gemma.config import T5GemmaConfig


@flax.struct.dataclass
class DecoderContext:
    """What all layers of a decoder share.

    Attributes:
      encoded: [B, S, E of the encoder]; None where the cache has its keys and values.
      allowed: [., T, T], whether a position may look at another of any distance; None with a cache.
      cross_bias: [., 1, ., S]; masks the padding of the prompts.
      angles: by which the heads at the positions that are run turn.
      index: the one position that is run against a cache; None without one.
    """

    encoded: jax.Array | None
    allowed: jax.Array | None
    cross_bias: jax.Array
    angles: tuple[jax.Array, jax.Array]
    index: jax.Array | None = None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoded prompt, and feed-forward.

    Each stands between two norms and inside a residual.
    """

    config: T5GemmaConfig

    def setup(self):
        cfg = self.config
        for name in ("self_attention", "cross_attention", "mlp"):
            setattr(self, f"pre_{name}_layer_norm", layers.RMSNorm(cfg.dtype))
            setattr(self, f"post_{name}_layer_norm", layers.RMSNorm(cfg.dtype))
        attention = (cfg.decoder, cfg.scan_layers, cfg.dropout_rate, cfg.dtype)
        self.self_attention = layers.Attention(*attention)
        self.encoder_decoder_attention = layers.Attention(*attention)
        self.mlp = FeedForward(cfg.decoder.mlp_dim, layers.ACTIVATIONS, cfg.dropout_rate, cfg.dtype)

    def cross_keys_values(self, carry, _, encoded, __):
        """Keys and values of the encoded prompts, in the shape a scan over layers wants."""
        return carry, self.encoder_decoder_attention.keys_values(encoded)

    def __call__(self, carry, each, context, deterministic):
        """Runs all positions, or the one at `context.index` against a cache.

        Args:
          carry: the activations [R, Q, E], and the own keys and values of a `Cache` (of this
            layer, or of all layers where they are scanned); None without a cache.
          each: the layer's window; its number, where a scanned stack has a cache; and the keys and
            values of the prompts, None without a cache.
          context: what the layers share.
          deterministic: without dropout.

        Returns:
          The new carry, and None for the scan.
        """
        x, own = carry
        window, layer, cross = each
        x = shard(x, "batch", "length", "embed")
        y = self.pre_self_attention_layer_norm(x)
        keys_values = self.self_attention.keys_values(y, context.angles)
        if cross is None:
            cross = self.encoder_decoder_attention.keys_values(context.encoded)
            bias = mask_bias(context.allowed & _within(window, context.allowed.shape[-1])[None])
        else:
            # A cache shorter than the completion begins again at its start.
            place = context.index % own[0].shape[-2]
            own, keys_values = append(own, keys_values, layer, place)
            bias = mask_bias(_kept(window, context.index, keys_values[0].shape[-2])[None, None])
        y = self.self_attention(y, *keys_values, bias, context.angles, deterministic=deterministic)
        x = self._add(x, self.post_self_attention_layer_norm(y), deterministic)
        y = self.encoder_decoder_attention(
            self.pre_cross_attention_layer_norm(x),
            *cross,
            context.cross_bias,
            deterministic=deterministic,
        )
        x = self._add(x, self.post_cross_attention_layer_norm(y), deterministic)
        y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
        return (self._add(x, self.post_mlp_layer_norm(y), deterministic), own), None

    def _add(self, x, y, deterministic):
        x = x + dropout(self, y, self.config.dropout_rate, deterministic)
        return shard(x, "batch", "length", "embed")


def _within(window, length):
    """[T, T]: whether a position is no later than another, and in its window."""
    distance = jnp.arange(length)[:, None] - jnp.arange(length)[None]
    return (distance >= 0) & (distance < window)


def _kept(window, index, length):
    """[length]: which of a cache's places hold a position in the window of the one at `index`."""
    age = (index - jnp.arange(length)) % length  # What is older has been written over.
    return (age <= index) & (age < window)


class Decoder(nn.Module):
    """Embedding, layers, the last norm, and the head."""

    config: T5GemmaConfig

    def setup(self):
        cfg, stack = self.config, self.config.decoder
        self.token_embedder = layers.Embed(cfg.vocab_size, stack.emb_dim, cfg.dtype)
        layer = layer_class(
            cfg, DecoderLayer, stack.num_layers, (False, True), ["__call__", "cross_keys_values"]
        )
        if cfg.scan_layers:
            self.decoder = layer(cfg)
        else:
            self.layers = [layer(cfg) for _ in range(stack.num_layers)]
        self.decoder_norm = layers.RMSNorm(cfg.dtype)

    def _stack(self, tokens, cache, context, deterministic):
        """Everything up to the last norm; returns the states and the cache's new own part."""
        cfg, stack = self.config, self.config.decoder
        x = dropout(self, self.token_embedder(tokens), cfg.dropout_rate, deterministic)
        own = None if cache is None else cache.own
        if cfg.scan_layers:
            cached = (None, None) if cache is None else (jnp.arange(stack.num_layers), cache.cross)
            each = (jnp.asarray(stack.windows, jnp.int32), *cached)
            (x, own), _ = self.decoder((x, own), each, context, deterministic)
        else:
            layer_own = [None] * stack.num_layers if own is None else list(own)
            for i, layer in enumerate(self.layers):
                each = (stack.windows[i], None, None if cache is None else cache.cross[i])
                (x, layer_own[i]), _ = layer((x, layer_own[i]), each, context, deterministic)
            own = tuple(layer_own)
        return dropout(self, self.decoder_norm(x), cfg.dropout_rate, deterministic), own

    def _angles(self, positions):
        return layers.angles(
            positions, self.config.decoder.head_dim, self.config.decoder.rope_theta
        )

    def __call__(self, tokens, encoded, allowed, cross_bias, deterministic):
        angles = self._angles(jnp.arange(tokens.shape[1]))
        context = DecoderContext(encoded, allowed, cross_bias, angles)
        return self._stack(tokens, None, context, deterministic)[0]

    def logits(self, states):
        """The output head: states [..., E] to float32 logits [..., V]."""
        return layers.softcap(self.token_embedder.attend(states), self.config.final_softcap)

    def cache(self, encoded, cross_bias, samples, max_length):
        """The cache of no position yet, for `samples` completions of each prompt."""
        cfg, stack = self.config, self.config.decoder

        def empty(length, *layer_axis):
            shape = (encoded.shape[0] * samples, stack.num_kv_heads, length, stack.head_dim)
            names = (*(["layers"] * len(layer_axis)), "batch", "heads", "length", "kv")
            zeros = jnp.zeros((*layer_axis, *shape), cfg.dtype)
            return (shard(zeros, *names),) * 2

        if cfg.scan_layers:
            cross = self.decoder.cross_keys_values((), None, encoded, True)[1]
            own = empty(max_length, stack.num_layers)
        else:
            cross = tuple(
                layer.cross_keys_values((), None, encoded, True)[1] for layer in self.layers
            )
            own = tuple(empty(min(window, max_length)) for window in stack.windows)
        return Cache(cross, cross_bias, own, jnp.zeros((), jnp.int32))

    def step(self, tokens, cache):
        """The states of one position, [R, 1, E], of tokens [R, 1], and the longer cache."""
        angles = self._angles(cache.index[None])
        context = DecoderContext(None, None, cache.cross_bias, angles, cache.index)
        x, own = self._stack(tokens, cache, context, True)
        return x, cache.replace(own=own, index=cache.index + 1)
