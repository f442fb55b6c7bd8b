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
      positions: [Q], those that are run; with a cache, one.
    """

    encoded: jax.Array | None
    allowed: jax.Array | None
    cross_bias: jax.Array
    positions: jax.Array


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoded prompt, and feed-forward.

    Each stands between two norms and inside a residual. Merged, the first two are one attention,
    by one set of kernels, to the completion so far and the prompt at once.
    """

    config: T5GemmaConfig

    def setup(self):
        cfg = self.config
        apart = () if cfg.merged_attention else ("cross_attention",)
        for name in ("self_attention", *apart, "mlp"):
            setattr(self, f"pre_{name}_layer_norm", layers.RMSNorm(cfg.dtype))
            setattr(self, f"post_{name}_layer_norm", layers.RMSNorm(cfg.dtype))
        self.self_attention = layers.Attention(cfg, cfg.decoder)
        if not cfg.merged_attention:
            self.encoder_decoder_attention = layers.Attention(cfg, cfg.decoder)
        self.mlp = FeedForward(cfg.decoder.mlp_dim, layers.ACTIVATIONS, cfg.dropout_rate, cfg.dtype)

    def cross_keys_values(self, carry, _, encoded, __):
        """Keys and values of the encoded prompts, in the shape a scan over layers wants."""
        return carry, self._of_prompts(encoded)

    def __call__(self, carry, each, context, deterministic):
        """Runs all positions, or one against a cache.

        Args:
          carry: the activations [R, Q, E], and the own keys and values of a `Cache` (of this
            layer, or of all layers where they are scanned); None without a cache.
          each: the layer's window and frequencies; its number, where a scanned stack has a cache;
            and the keys and values of the prompts, None without a cache.
          context: what the layers share.
          deterministic: without dropout.

        Returns:
          The new carry, and None for the scan.
        """
        x, own = carry
        window, frequencies, layer, cross = each
        x = shard(x, "batch", "length", "embed")
        y = self.pre_self_attention_layer_norm(x)
        angles = layers.angles(context.positions, frequencies)
        keys_values = self.self_attention.keys_values(y, angles)
        if cross is None:
            cross = self._of_prompts(context.encoded)
            bias = mask_bias(context.allowed & _within(window, context.allowed.shape[-1])[None])
        else:
            # A cache shorter than the completion begins again at its start.
            index = context.positions[0]
            own, keys_values = append(own, keys_values, layer, index % own[0].shape[-2])
            bias = mask_bias(_kept(window, index, keys_values[0].shape[-2])[None, None])
        sources, prompt = [(*keys_values, bias)], (*cross, context.cross_bias)
        if self.config.merged_attention:
            sources.append(prompt)
        y = self.self_attention(y, sources, angles, deterministic=deterministic)
        x = self._add(x, self.post_self_attention_layer_norm(y), deterministic)
        if not self.config.merged_attention:
            y = self.pre_cross_attention_layer_norm(x)
            y = self.encoder_decoder_attention(y, [prompt], deterministic=deterministic)
            x = self._add(x, self.post_cross_attention_layer_norm(y), deterministic)
        y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
        return (self._add(x, self.post_mlp_layer_norm(y), deterministic), own), None

    def _of_prompts(self, encoded):
        """Keys and values of the encoded prompts."""
        merged = self.config.merged_attention
        attention = self.self_attention if merged else self.encoder_decoder_attention
        return attention.keys_values(encoded)

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
    """Embedding, layers, the last norm, and the head.

    Attributes:
      config: of the network.
      shared: the embedding, where it is not the decoder's own.
    """

    config: T5GemmaConfig
    shared: layers.Embed | None = None

    def setup(self):
        cfg, stack = self.config, self.config.decoder
        if self.shared is None:
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
        x = dropout(self, self._embed(tokens), cfg.dropout_rate, deterministic)
        own = None if cache is None else cache.own
        shapes = (stack.windows, stack.frequencies)
        if cfg.scan_layers:
            cached = (None, None) if cache is None else (jnp.arange(stack.num_layers), cache.cross)
            each = (*(jnp.asarray(part) for part in shapes), *cached)
            (x, own), _ = self.decoder((x, own), each, context, deterministic)
        else:
            layer_own = [None] * stack.num_layers if own is None else list(own)
            for i, layer in enumerate(self.layers):
                cross = None if cache is None else cache.cross[i]
                each = (*(part[i] for part in shapes), None, cross)
                (x, layer_own[i]), _ = layer((x, layer_own[i]), each, context, deterministic)
            own = tuple(layer_own)
        return dropout(self, self.decoder_norm(x), cfg.dropout_rate, deterministic), own

    @property
    def _embed(self):
        return self.token_embedder if self.shared is None else self.shared

    def __call__(self, tokens, encoded, allowed, cross_bias, deterministic):
        context = DecoderContext(encoded, allowed, cross_bias, jnp.arange(tokens.shape[1]))
        return self._stack(tokens, None, context, deterministic)[0]

    def logits(self, states):
        """The output head: states [..., E] to float32 logits [..., V]."""
        return layers.softcap(self._embed.attend(states), self.config.final_softcap)

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
        context = DecoderContext(None, None, cache.cross_bias, cache.index[None])
        x, own = self._stack(tokens, cache, context, True)
        return x, cache.replace(own=own, index=cache.index + 1)
