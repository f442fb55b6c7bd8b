"""Which arrays a batch of a corpus has: prompts, supervised examples, or comparisons.

All take T5X's TASK_FEATURE_LENGTHS, the lengths of `inputs` and `targets`.
"""

from collections.abc import Mapping

import numpy as np


class Prompts:
    """prompt [batch, length], of the feature `inputs`.

    Raises:
      ValueError: `lengths` has no length for the feature.
    """

    def __init__(self, lengths: Mapping[str, int]):
        self.features = _features(lengths, inputs="inputs")

    def __call__(self, corpus, rows, flips):
        return {"prompt": corpus.padded("inputs", rows, self.features["inputs"])[0]}


class Supervised:
    """T5X's encoder_input_tokens, decoder_{target,input}_tokens and decoder_loss_weights.

    All are [batch, length]. The decoder's input is its target shifted right by one.

    Raises:
      ValueError: `lengths` lacks a feature.
    """

    def __init__(self, lengths: Mapping[str, int]):
        self.features = _features(lengths, inputs="inputs", targets="targets")

    def __call__(self, corpus, rows, flips):
        (inputs, _), (targets, mask) = (
            corpus.padded(name, rows, length) for name, length in self.features.items()
        )
        return {
            "encoder_input_tokens": inputs,
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

    def __init__(self, lengths: Mapping[str, int]):
        self.features = _features(
            lengths, inputs="inputs", completion_1="targets", completion_2="targets"
        )

    def __call__(self, corpus, rows, flips):
        (prompt, _), *pairs = (
            corpus.padded(name, rows, length) for name, length in self.features.items()
        )
        completion, mask = (np.stack(part, axis=1) for part in zip(*pairs, strict=True))
        places = np.stack([flips, ~flips], axis=1).astype(np.int64)[:, :, None]
        preference = corpus.preference[rows]
        return {
            "prompt": prompt,
            "completion": np.take_along_axis(completion, places, axis=1),
            "mask": np.take_along_axis(mask, places, axis=1),
            "preference": np.where(flips, 1 - preference, preference).astype(np.float32),
        }


def _features(lengths: Mapping[str, int], **sources: str) -> dict[str, int]:
    """The length of each feature; `sources` says whose length it takes."""
    for source in sources.values():
        if lengths.get(source, 0) < 1:
            raise ValueError(f"expected a length of {source!r}, 1 or more, got {dict(lengths)}")
    return {name: lengths[source] for name, source in sources.items()}
