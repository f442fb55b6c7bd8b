"""T5Gemma and T5Gemma 2 as a `po_jax.language_model.LanguageModel`."""

import dataclasses

from po_jax.language_model import SpecialIds
from po_jax.t5.language_model import EncoderDecoder
from po_jax.t5gemma.config import T5GemmaConfig
from po_jax.t5gemma.network import Transformer


@dataclasses.dataclass(frozen=True)
class T5GemmaLM(EncoderDecoder):
    """A T5Gemma, or the text part of a T5Gemma 2, as a distribution over completions: pi(y | x).

    Attributes:
      special_ids: of the checkpoint's vocabulary; its decoder starts with BOS.
    """

    config: T5GemmaConfig
    special_ids: SpecialIds = dataclasses.field(kw_only=True)

    kept_float32 = ("scale",)

    @property
    def module(self) -> Transformer:
        """The Flax module."""
        return Transformer(self.config, self.special_ids.pad)
