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
    def __call__(self, x, window, allowed, angles, deterministic):
        """A layer that looks `window` positions to either side, of those `allowed` [., ., S]."""
        cfg = self.config
        x = shard(x, "batch", "length", "embed")
        positions = jnp.arange(x.shape[1])
        near = jnp.abs(positions[:, None] - positions[None]) <= window
        bias = mask_bias(allowed & near[None])
        y = layers.RMSNorm(cfg.dtype, name="pre_attention_layer_norm")(x)
        attention = layers.Attention(
            cfg.encoder, cfg.scan_layers, cfg.dropout_rate, cfg.dtype, name="attention"
        )
        y = attention(
            y, *attention.keys_values(y, angles), bias, angles, deterministic=deterministic
        )
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
    """Embedding, layers and the last norm."""

    config: T5GemmaConfig

    @nn.compact
    def __call__(self, tokens, allowed, deterministic):
        cfg, stack = self.config, self.config.encoder
        x = layers.Embed(cfg.vocab_size, stack.emb_dim, cfg.dtype, name="token_embedder")(tokens)
        x = dropout(self, x, cfg.dropout_rate, deterministic)
        angles = layers.angles(jnp.arange(tokens.shape[1]), stack.head_dim, stack.rope_theta)
        layer = layer_class(cfg, EncoderLayer, stack.num_layers, (False, True, True), ["__call__"])
        if cfg.scan_layers:
            windows = jnp.asarray(stack.windows, jnp.int32)
            x, _ = layer(cfg, name="encoder")(x, windows, allowed, angles, deterministic)
        else:
            for i, window in enumerate(stack.windows):
                x, _ = layer(cfg, name=f"layers_{i}")(x, window, allowed, angles, deterministic)
        x = layers.RMSNorm(cfg.dtype, name="encoder_norm")(x)
        return dropout(self, x, cfg.dropout_rate, deterministic)
