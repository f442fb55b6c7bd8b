"""The hyperparameters that tell one T5Gemma from another."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from po_jax.t5.config import REMAT_POLICIES

EVERYWHERE = np.iinfo(np.int32).max  # The window of a layer without one.


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """Shape of an encoder or a decoder; the two may differ in everything.

    Attributes:
      emb_dim: width of the residual stream.
      num_heads: heads of queries.
      num_kv_heads: heads of keys and values, each for `num_heads / num_kv_heads` of the queries.
      head_dim: width of one head, even.
      mlp_dim: width of the feed-forward layer.
      num_layers: depth.
      query_scalar: attention logits are divided by its square root.
      sliding_window: how far a sliding layer looks: an encoder's to both sides, a decoder's over so
        many positions, its own included.
      sliding_layers: whether each layer is a sliding one; by default every other one, the first
        among them.
      attention_softcap: c of the attention logits' c tanh(x / c); None for none.
      rope_theta: base of the rotary positions' wavelengths.

    Raises:
      ValueError: on an option outside its range.
    """

    emb_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    num_layers: int
    query_scalar: int
    sliding_window: int = 4096
    sliding_layers: Sequence[bool] | None = None
    attention_softcap: float | None = 50.0
    rope_theta: float = 10000.0

    def __post_init__(self):
        sliding = self.sliding_layers
        if sliding is None:
            sliding = (i % 2 == 0 for i in range(self.num_layers))
        object.__setattr__(self, "sliding_layers", tuple(sliding))
        sizes = ("emb_dim", "num_heads", "num_kv_heads", "head_dim", "mlp_dim", "num_layers")
        for name in (*sizes, "sliding_window"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"StackConfig.{name}: expected a positive integer, got {getattr(self, name)!r}."
                )
        for name in ("query_scalar", "rope_theta", "attention_softcap"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(
                    f"StackConfig.{name}: expected a positive number, got {getattr(self, name)!r}."
                )
        if self.num_heads % self.num_kv_heads or self.head_dim % 2:
            raise ValueError(
                "StackConfig: expected num_heads to be a multiple of num_kv_heads, and an even "
                f"head_dim, got {self.num_heads}, {self.num_kv_heads} and {self.head_dim}."
            )
        if len(self.sliding_layers) != self.num_layers:
            raise ValueError(
                f"StackConfig.sliding_layers: expected one for each of {self.num_layers} layers, "
                f"got {len(self.sliding_layers)}."
            )

    @property
    def windows(self) -> tuple[int, ...]:
        """The window of each layer."""
        return tuple(
            self.sliding_window if slides else EVERYWHERE for slides in self.sliding_layers
        )


@dataclasses.dataclass(frozen=True)
class T5GemmaConfig:
    """Shape and options of a T5Gemma.

    Attributes:
      vocab_size: rows of either embedding, a multiple of the model-parallel mesh axis.
      encoder: its shape.
      decoder: its shape; its embedding is the output head, too.
      final_softcap: c of the logits' c tanh(x / c); None for none.
      dropout_rate: in [0, 1); used only where a dropout key is given.
      dtype: of the activations; parameters keep the dtype they are stored in, log-probabilities
        are float32 always.
      scan_layers: run each stack as one `scan` over parameters stacked on axis 1: compile time no
        longer grows with depth. Sliding layers then keep caches as long as the others'.
      remat_policy: what the backward pass recomputes: `"none"`, `"minimal"` (all but matrix
        products without batch dimensions), or `"full"` (each whole layer).

    Raises:
      ValueError: on an option outside its range.
    """

    vocab_size: int
    encoder: StackConfig
    decoder: StackConfig
    final_softcap: float | None = 30.0
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32
    scan_layers: bool = False
    remat_policy: str = "none"

    def __post_init__(self):
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype))  # Gin hands over its name.
        for name, valid, expected in (
            ("vocab_size", self.vocab_size >= 1, "a positive integer"),
            ("final_softcap", self.final_softcap is None or self.final_softcap > 0, "more than 0"),
            ("dropout_rate", 0.0 <= self.dropout_rate < 1.0, "a rate in [0, 1)"),
            ("dtype", self.dtype != jnp.float16, "float32 or bfloat16"),
            ("remat_policy", self.remat_policy in REMAT_POLICIES, f"one of {REMAT_POLICIES}"),
        ):
            if not valid:
                raise ValueError(
                    f"T5GemmaConfig.{name}: expected {expected}, got {getattr(self, name)!r}."
                )
