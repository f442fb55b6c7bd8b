"""A judge with another vocabulary than the policy's: through text, and back into its own ids."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
import logging

import numpy as np

from po_jax.data.layouts import length_of
from po_jax.judges.judge import Judge, Judgement, Pairs
from po_jax.judges.learned import LearnedJudge
from po_jax.language_model import require_vocabulary
from po_jax.partitioning import collect
from po_jax.vocabulary import Vocabulary, to_tokens

logger = logging.getLogger(__name__)


@cache
def _warn_once(what: str, length: int) -> None:
    logger.warning("%s of more than %d of the judge's own tokens are cut for it", what, length)


@dataclass(frozen=True)
class OtherVocabularyJudge:
    """Decodes prompts and completions, encodes them in the judge's vocabulary, and asks it.

    A completion that was cut off before its EOS has none in the judge's ids either. That something
    is longer than `lengths` in the judge's tokens is logged once.

    Attributes:
      judge: reads its own vocabulary's ids.
      vocabulary: of the policy.
      own_vocabulary: of the judge.
      lengths: tokens kept of a prompt ("inputs") and of a completion ("targets", EOS included), in
        the judge's vocabulary.
      keep_end: of a prompt that is too long, its end and not its beginning.

    Raises:
      ValueError: if a length is missing or 0, or a trained judge lacks ids of its vocabulary.
    """

    judge: Judge
    vocabulary: Vocabulary
    own_vocabulary: Vocabulary
    lengths: Mapping[str, int]
    keep_end: bool = False

    def __post_init__(self):
        for name in ("inputs", "targets"):
            length_of(self.lengths, name, "OtherVocabularyJudge.lengths: ")
        if isinstance(self.judge, LearnedJudge):
            network = self.judge.model.language_model
            require_vocabulary("OtherVocabularyJudge", self.own_vocabulary, network)

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def antisymmetric(self) -> bool:
        return self.judge.antisymmetric

    def begin(self, pairs: Pairs) -> Callable[[], Judgement]:
        """Translates, once the tokens are there, and asks the judge."""
        texts = pairs.completion_texts(self.vocabulary)
        flat = [text for pair in texts for text in pair]
        tokens, kept = collect((pairs.completion, pairs.mask))
        ended = ((tokens == self.vocabulary.eos_id) & kept).any(axis=-1).reshape(-1).tolist()
        prompts = pairs.prompt_texts(self.vocabulary)
        length = self.lengths["inputs"]
        prompt, cut = to_tokens(self.own_vocabulary, prompts, length, self.keep_end)
        if cut:
            _warn_once("prompts", length)
        length = self.lengths["targets"]
        completion, cut = to_tokens(self.own_vocabulary, flat, length, ended=ended)
        if cut:
            _warn_once("completions", length)
        completion = completion.reshape(len(texts), 2, -1)
        mask = completion != self.own_vocabulary.pad_id
        return self.judge.begin(
            replace(pairs, prompt=prompt, completion=completion, mask=np.asarray(mask))
        )
