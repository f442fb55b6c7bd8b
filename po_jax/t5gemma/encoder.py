"""The encoder of a T5Gemma. Shape letters: see `layers.py`."""

from flax import linen as nn
import jax.numpy as jnp

from po_jax.partitioning import shard
from po_jax.t5.layers import FeedForward, dropout
from po_jax.t5.stack import layer_class, mask_bias
from po_jax.t5gemma import layers
from po_jax.t5gemma.config import T5GemmaConfig


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each between two norms and inside a residual."""

    config: T5GemmaConfig

    @nn.compact
    def __call__(self, x, each, allowed, deterministic):
        """A layer that looks so far back and ahead, at positions `allowed` [., ., S]."""
        cfg, (back, ahead, frequencies) = self.config, each
        x = shard(x, "batch", "length", "embed")
        positions = jnp.arange(x.shape[1])
        distance = positions[:, None] - positions[None]
        bias = mask_bias(allowed & ((distance <= back) & (-distance <= ahead))[None])
        angles = layers.angles(positions, frequencies)
        y = layers.RMSNorm(cfg.dtype, name="pre_attention_layer_norm")(x)
        attention = layers.Attention(cfg, cfg.encoder, name="attention")
        sources = [(*attention.keys_values(y, angles), bias)]
        y = attention(y, sources, angles, deterministic=deterministic)
        y = layers.RMSNorm(cfg.dtype, name="post_attention_layer_norm")(y)
        x = shard(x + dropout(self, y, cfg.dropout_rate, deterministic), "batch", "length", "embed")
        y = layers.RMSNorm(cfg.dtype, name="pre_mlp_layer_norm")(x)
        mlp = FeedForward(
            cfg.encoder.mlp_dim, layers.ACTIVATIONS, cfg.dropout_rate, cfg.dtype, name="mlp"
        )
        y = mlp(y, deterministic=deterministic)
        y = layers.RMSNorm(cfg.dtype, name="post_mlp_layer_norm")(y)
        x = x + dropout(self, y, cfg.dropout_rate, deterministic)
        return shard(x, "batch", "length", "embed"), None


class Encoder(nn.Module):
    """Embedding, layers and the last norm.

    Attributes:
      config: of the network.
      shared: the embedding, where it is not the encoder's own.
    """

    config: T5GemmaConfig
    shared: layers.Embed | None = None

    @nn.compact
    def __call__(self, tokens, allowed, deterministic):
        cfg, stack = self.config, self.config.encoder
        embed = self.shared
        if embed is None:
            embed = layers.Embed(cfg.vocab_size, stack.emb_dim, cfg.dtype, name="token_embedder")
        x = dropout(self, embed(tokens), cfg.dropout_rate, deterministic)
        layer = layer_class(cfg, EncoderLayer, stack.num_layers, (False, True), ["__call__"])
        back, ahead = zip(*cfg.encoder_reach, strict=True)
        each = (back, ahead, stack.frequencies)
        if cfg.scan_layers:
            each = tuple(jnp.asarray(part) for part in each)
            x, _ = layer(cfg, name="encoder")(x, each, allowed, deterministic)
        else:
            for i, own in enumerate(zip(*each, strict=True)):
                x, _ = layer(cfg, name=f"layers_{i}")(x, own, allowed, deterministic)
        x = layers.RMSNorm(cfg.dtype, name="encoder_norm")(x)
        return dropout(self, x, cfg.dropout_rate, deterministic)
