"""What encoder and decoder stacks have in common: masks, the parts of a layer, scan and remat."""

from flax import linen as nn
from flax.linen import partitioning
import jax
import jax.numpy as jnp

from po_jax.t5 import layers


def mask_bias(allowed):
    """[., Q, S] booleans to an additive bias [., 1, Q, S]."""
    return jnp.where(allowed, 0.0, layers.MASKED).astype(jnp.float32)[..., None, :, :]


def attention(cfg, name=None):
    return layers.Attention(
        num_heads=cfg.num_heads,
        head_dim=cfg.head_dim,
        emb_dim=cfg.emb_dim,
        split_kernels=cfg.scan_layers,
        dropout_rate=cfg.dropout_rate,
        dtype=cfg.dtype,
        fused=cfg.fused_attention,
        name=name,
    )


def feed_forward(cfg, name=None):
    return layers.FeedForward(
        cfg.mlp_dim, cfg.mlp_activations, cfg.dropout_rate, cfg.dtype, name=name
    )


def relative_bias(cfg, *, bidirectional, name=None):
    return layers.RelativeBias(
        cfg.num_heads,
        cfg.relative_buckets,
        cfg.relative_max_distance,
        bidirectional,
        name=name,
    )


def layer_class(cfg, layer, length, broadcast, methods):
    """The layer, rematerialised and scanned as the configuration says.

    A scanned layer takes its carry, then `len(broadcast)` arguments of which those marked False
    have a layer axis, then the static `deterministic`.
    """
    if cfg.remat_policy != "none":
        minimal = jax.checkpoint_policies.save_only_these_names("product")
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
