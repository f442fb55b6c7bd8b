"""The hyperparameters that tell one T5Gemma from another, and the first from the second."""

from collections.abc import Sequence
import dataclasses
from typing import Any, ClassVar

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
      sliding_window: how far a sliding layer looks: a decoder's over so many positions, its own
        included; an encoder's to both sides, or, of T5Gemma 2, over so many in all.
      sliding_layers: whether each layer is a sliding one; by default every other one, the first
        among them.
      attention_softcap: c of the attention logits' c tanh(x / c); None for none.
      rope_theta: base of the rotary positions' wavelengths.
      full_rope_theta: that of layers that do not slide; None for the same.
      full_rope_factor: by which their positions are divided.

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
    full_rope_theta: float | None = None
    full_rope_factor: float = 1.0

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
        rope = ("rope_theta", "full_rope_theta", "full_rope_factor")
        for name in ("query_scalar", "attention_softcap", *rope):
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

    @property
    def beyond_shapes(self) -> dict[str, Any]:
        """What decides the stack's function and no shape of a parameter tells."""
        names = ("num_heads", "num_kv_heads", "head_dim", "query_scalar", "attention_softcap")
        return {
            **{name: getattr(self, name) for name in names},
            "windows": self.windows,
            "rope_theta": self.rope_theta,
            "full_rope_theta": self.full_rope_theta or self.rope_theta,
            "full_rope_factor": self.full_rope_factor,
        }

    @property
    def frequencies(self) -> tuple[np.ndarray, ...]:
        """Of each layer, [D / 2]: by how much a head's coordinates turn from one position on."""
        powers = np.arange(0, self.head_dim, 2, dtype=np.float32) / self.head_dim
        sliding = 1.0 / np.float32(self.rope_theta) ** powers
        full = 1.0 / np.float32(self.full_rope_theta or self.rope_theta) ** powers
        full = full / np.float32(self.full_rope_factor)
        return tuple(sliding if slides else full for slides in self.sliding_layers)


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

    shared_embedding: ClassVar[bool] = False
    merged_attention: ClassVar[bool] = False
    normed_heads: ClassVar[bool] = False
    end_of_image: ClassVar[int | None] = None

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

    @property
    def beyond_shapes(self) -> dict[str, Any]:
        """What decides the network's function and no shape of a parameter tells."""
        stacks = {"encoder": self.encoder, "decoder": self.decoder}
        return {
            "final_softcap": self.final_softcap,
            "end_of_image": self.end_of_image,
            **{
                f"{name}.{option}": value
                for name, stack in stacks.items()
                for option, value in stack.beyond_shapes.items()
            },
        }

    @property
    def encoder_reach(self) -> tuple[tuple[int, int], ...]:
        """How many positions back and how many ahead each layer of the encoder looks."""
        return tuple((window, window) for window in self.encoder.windows)


@dataclasses.dataclass(frozen=True)
class T5Gemma2Config(T5GemmaConfig):
    """Shape and options of the text part of a T5Gemma 2 (arXiv 2512.14856).

    One table of embeddings serves encoder, decoder and head; the decoder looks at the completion
    and at the prompt by one attention; queries and keys are normed. There is no vision tower.

    Attributes:
      final_softcap: None for none, as the published ones have it.
      end_of_image: id of the token that ends an image; its input embedding is not in the table.

    Raises:
      ValueError: on an option outside its range, or stacks that no T5Gemma 2 has.
    """

    final_softcap: float | None = None
    end_of_image: int = 256000  # type: ignore[misc]

    shared_embedding = merged_attention = normed_heads = True

    def __post_init__(self):
        super().__post_init__()
        stacks = (self.encoder, self.decoder)
        widths = [stack.emb_dim for stack in stacks]
        caps = [stack.attention_softcap for stack in stacks]
        if widths[0] != widths[1]:
            raise ValueError(
                f"T5Gemma2Config: expected one emb_dim of encoder and decoder, got {widths}."
            )
        if caps != [None, None]:
            raise ValueError(f"T5Gemma2Config: expected no attention_softcap, got {caps}.")

    @property
    def encoder_reach(self) -> tuple[tuple[int, int], ...]:
        """How many positions back and how many ahead each layer of the encoder looks."""
        return tuple(((window - 1) // 2, window // 2) for window in self.encoder.windows)
