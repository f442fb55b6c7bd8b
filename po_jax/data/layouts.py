"""Which arrays a batch of a corpus has: prompts, supervised examples, or comparisons.

All take T5X's TASK_FEATURE_LENGTHS, the lengths of `inputs` and `targets`. Of a prompt that is too
long its beginning is kept, or with `keep_end` its end, such as the last turns of a dialogue and its
EOS. Completions are cut at their end.
"""

from collections.abc import Mapping

import numpy as np

from po_jax.data.corpus import Corpus, Layout

COMPLETIONS = ("completion_1", "completion_2")


class Prompts:
    """prompt [batch, length], of the feature `inputs`.

    Raises:
      ValueError: `lengths` has no length for the feature.
    """

    def __init__(self, lengths: Mapping[str, int], keep_end: bool = False):
        self.features = _features(lengths, inputs="inputs")
        self.keep_end = keep_end

    def __call__(self, corpus, rows, flips):
        return {"prompt": _inputs(self, corpus, rows)}


class Supervised:
    """T5X's encoder_input_tokens, decoder_{target,input}_tokens and decoder_loss_weights.

    All are [batch, length]. The decoder's input is its target shifted right by one.

    Raises:
      ValueError: `lengths` lacks a feature.
    """

    def __init__(self, lengths: Mapping[str, int], keep_end: bool = False):
        self.features = _features(lengths, inputs="inputs", targets="targets")
        self.keep_end = keep_end

    def __call__(self, corpus, rows, flips):
        targets, mask = corpus.padded("targets", rows, self.features["targets"])
        return {
            "encoder_input_tokens": _inputs(self, corpus, rows),
            "decoder_target_tokens": targets,
            "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
            "decoder_loss_weights": mask.astype(np.int32),
        }


class Comparisons:
    """prompt [batch, prompt_length], completion and mask [batch, 2, length], preference [batch].

    Files tend to put the preferred completion first. Where the random bit says so, the two change
    places and the label changes with them, so that the place tells nothing.

    Raises:
      ValueError: `lengths` lacks a feature.
    """

    def __init__(self, lengths: Mapping[str, int], keep_end: bool = False):
        self.features = _features(lengths, inputs="inputs", **dict.fromkeys(COMPLETIONS, "targets"))
        self.keep_end = keep_end

    def __call__(self, corpus, rows, flips):
        pairs = [corpus.padded(name, rows, self.features[name]) for name in COMPLETIONS]
        completion, mask = (np.stack(part, axis=1) for part in zip(*pairs, strict=True))
        places = np.stack([flips, ~flips], axis=1).astype(np.int64)[:, :, None]
        preference = corpus.preference[rows]
        return {
            "prompt": _inputs(self, corpus, rows),
            "completion": np.take_along_axis(completion, places, axis=1),
            "mask": np.take_along_axis(mask, places, axis=1),
            "preference": np.where(flips, 1 - preference, preference).astype(np.float32),
        }


def length_of(lengths: Mapping[str, int], feature: str, where: str = "") -> int:
    """Tokens that a feature may have, from T5X's TASK_FEATURE_LENGTHS.

    Raises:
      ValueError: no whole number is given, or less than one; begins with `where` they are from.
    """
    length = lengths.get(feature)
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"{where}expected a length of {feature!r}, 1 or more, got {dict(lengths)}")
    return length


def _inputs(layout: Layout, corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    return corpus.padded("inputs", rows, layout.features["inputs"], layout.keep_end)[0]


def _features(lengths: Mapping[str, int], **sources: str) -> dict[str, int]:
    """The length of each feature; `sources` says whose length it takes."""
    return {name: length_of(lengths, source) for name, source in sources.items()}
