"""The encoder of a T5. Shape letters: see `layers.py`."""

from flax import linen as nn

from po_jax.partitioning import shard
from po_jax.t5 import layers, stack
from po_jax.t5.config import T5Config
from po_jax.t5.layers import dropout


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each after a norm and inside a residual."""

    config: T5Config

    @nn.compact
    def __call__(self, x, mask_bias, relative_bias, deterministic):
        cfg = self.config
        x = shard(x, "batch", "length", "embed")
        if relative_bias is None:
            relative_bias = stack.relative_bias(cfg, bidirectional=True, name="relpos_bias")(
                x.shape[1], x.shape[1]
            )
        y = layers.LayerNorm(cfg.dtype, name="pre_attention_layer_norm")(x)
        attention = stack.attention(cfg, "attention")
        y = attention(
            y, *attention.keys_values(y), mask_bias, relative_bias, deterministic=deterministic
        )
        x = shard(x + dropout(self, y, cfg.dropout_rate, deterministic), "batch", "length", "embed")
        y = layers.LayerNorm(cfg.dtype, name="pre_mlp_layer_norm")(x)
        y = stack.feed_forward(cfg, "mlp")(y, deterministic=deterministic)
        x = x + dropout(self, y, cfg.dropout_rate, deterministic)
        return shard(x, "batch", "length", "embed"), None


class Encoder(nn.Module):
    """The stack of encoder layers."""

    config: T5Config

    @nn.compact
    def __call__(self, x, mask_bias, deterministic):
        cfg = self.config
        x = dropout(self, x, cfg.dropout_rate, deterministic)
        shared = None
        if cfg.shared_relative_bias:
            shared = stack.relative_bias(cfg, bidirectional=True, name="relpos_bias")(
                x.shape[1], x.shape[1]
            )
        layer = stack.layer_class(
            cfg, EncoderLayer, cfg.num_encoder_layers, (True, True), ["__call__"]
        )
        if cfg.scan_layers:
            x, _ = layer(cfg, name="encoder")(x, mask_bias, shared, deterministic)
        else:
            for i in range(cfg.num_encoder_layers):
                x, _ = layer(cfg, name=f"layers_{i}")(x, mask_bias, shared, deterministic)
        x = layers.LayerNorm(cfg.dtype, name="encoder_norm")(x)
        return dropout(self, x, cfg.dropout_rate, deterministic)
