"""The hyperparameters that tell one T5 from another."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax.numpy as jnp

REMAT_POLICIES = ("none", "minimal", "full")


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Shape and options of an encoder-decoder T5; names are those of T5X's `T5Config`.

    Attributes:
      vocab_size: rows of the embedding, a multiple of the model-parallel mesh axis.
      emb_dim: width of the residual stream.
      num_heads: attention heads.
      head_dim: width of one head; `num_heads * head_dim` need not equal `emb_dim`.
      mlp_dim: width of the feed-forward layer.
      num_encoder_layers: encoder depth.
      num_decoder_layers: decoder depth.
      mlp_activations: `("relu",)` for T5 1.0; `("gelu", "linear")`, gated, for 1.1, mT5, ByT5,
        Flan and umT5; `("silu", "linear")` for UL2.
      dropout_rate: in [0, 1); used only where a dropout key is given.
      logits_via_embedding: tie the output head to the embedding and scale the logits by
        `emb_dim ** -0.5` (T5 1.0); otherwise a separate head (T5 1.1).
      dtype: of the activations; parameters keep the dtype they are stored in, log-probabilities
        are float32 always.
      shared_relative_bias: one table for all layers of a stack (T5X's `examples/t5`); otherwise
        one for each layer (umT5, and T5X's `scalable_t5`).
      relative_buckets: buckets of the relative position bias.
      relative_max_distance: distance from which on all positions share a bucket.
      scan_layers: run each stack as one `scan` over parameters stacked on axis 1, as
        `scalable_t5` does: compile time no longer grows with depth.
      remat_policy: what the backward pass recomputes: `"none"`, `"minimal"` (all but matrix
        products without batch dimensions), or `"full"` (each whole layer).
      fused_attention: keep no attention weights for the backward pass, which makes them once more;
        on TPUs by a kernel that never writes them to memory (`fused_attention.py`).

    Raises:
      ValueError: on an option outside its range, or a shared bias in a scanned stack.
    """

    vocab_size: int
    emb_dim: int = 512
    num_heads: int = 8
    head_dim: int = 64
    mlp_dim: int = 2048
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    mlp_activations: Sequence[str] = ("relu",)
    dropout_rate: float = 0.1
    logits_via_embedding: bool = False
    dtype: Any = jnp.float32
    shared_relative_bias: bool = True
    relative_buckets: int = 32
    relative_max_distance: int = 128
    scan_layers: bool = False
    remat_policy: str = "none"
    fused_attention: bool = False

    def __post_init__(self):
        # Gin hands over lists and dtype names; the module must stay hashable.
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype))
        sizes = ("vocab_size", "emb_dim", "num_heads", "head_dim", "mlp_dim")
        for name in (*sizes, "num_encoder_layers", "num_decoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"T5Config.{name}: expected a positive integer, got {getattr(self, name)!r}."
                )
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ValueError(
                f"T5Config.dropout_rate: expected a rate in [0, 1), got {self.dropout_rate!r}."
            )
        if self.dtype == jnp.float16:
            raise ValueError(
                "T5Config.dtype: expected float32 or bfloat16, got float16, which T5's "
                "feed-forward layer overflows."
            )
        if self.remat_policy not in REMAT_POLICIES:
            raise ValueError(
                f"T5Config.remat_policy: expected one of {REMAT_POLICIES}, got "
                f"{self.remat_policy!r}."
            )
        if self.scan_layers and self.shared_relative_bias:
            raise ValueError(
                "T5Config: a scanned stack has a relative bias in each layer, as T5X's "
                "scalable_t5; expected shared_relative_bias=False with scan_layers=True, got True."
            )

    @property
    def beyond_shapes(self) -> dict[str, Any]:
        """What decides the network's function and no shape of a parameter tells."""
        names = ("num_heads", "head_dim", "mlp_activations", "relative_max_distance")
        return {name: getattr(self, name) for name in names}
