"""What `tasks.registration` yields, as the features that policies and judges read under T5X.

T5X cuts a feature to the length of its own name: `comparison_lengths` and `prompt_lengths` make
those of TASK_FEATURE_LENGTHS, which has "inputs" and "targets". It cuts at the end: where the end
of a prompt shall be kept, it is given no bound, and the converters cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from po_jax.data.layouts import COMPLETIONS, length_of

Lengths = Mapping[str, int]
Example = dict[str, tf.Tensor]
Spec = seqio.FeatureConverter.FeatureSpec

_ANY = 2**30  # tokens: seqio knows no feature without a length
# No byte of UTF-8, so that texts may hold anything.
_PADDING, _SEPARATOR = 0xFE, b"\xff"


def comparison_lengths(lengths: Lengths, keep_end: bool = False) -> Lengths:
    """The lengths of a task of comparisons; both completions have that of "targets"."""
    completion = length_of(lengths, "targets")
    return {
        **prompt_lengths(lengths, keep_end),
        **dict.fromkeys(COMPLETIONS, completion),
        "preference": 1,
    }


def prompt_lengths(lengths: Lengths, keep_end: bool = False) -> Lengths:
    """The lengths of a task of prompts."""
    return {"inputs": _ANY if keep_end else length_of(lengths, "inputs")}


def kept_end(lengths: Lengths, keep_end: bool = False) -> int | None:
    """What a converter is told of it: the length of a prompt whose end is kept."""
    return length_of(lengths, "inputs") if keep_end else None


class _Unpacked(seqio.FeatureConverter):
    """A converter that keeps every example in a row of its own.

    Args:
      pack: refused.
      use_custom_packing_ops: not used.
      keep_end: tokens of a prompt whose end is kept; None where T5X has cut its end.

    Raises:
      ValueError: on packing.
    """

    PACKING_FEATURE_DTYPES: Mapping[str, tf.dtypes.DType] = {}

    def __init__(
        self,
        pack: bool = False,
        use_custom_packing_ops: bool = False,
        keep_end: int | None = None,
    ):
        if pack:
            raise ValueError(
                f"{type(self).__name__}: expected pack=False, since completions belong to the "
                "prompt of their row, got True (T5X's own run files set it: ours do not)"
            )
        super().__init__(pack=False, use_custom_packing_ops=use_custom_packing_ops)
        self._keep_end = keep_end

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Lengths
    ) -> tf.data.Dataset:
        # There is no Python control flow for TensorFlow to find in it.
        convert = tf.autograph.experimental.do_not_convert(
            lambda example: self._convert(example, task_feature_lengths)
        )
        return ds.map(convert, num_parallel_calls=tf.data.AUTOTUNE)

    def _prompt_length(self, lengths: Lengths) -> int:
        return self._keep_end or lengths["inputs"]

    def _prompt(self, example: Example, lengths: Lengths) -> tf.Tensor:
        length = self._prompt_length(lengths)
        return _padded(example["inputs"][-length:], length)

    def _convert(self, example: Example, lengths: Lengths) -> Example:
        """The model's features of an example."""
        raise NotImplementedError


class ComparisonConverter(_Unpacked):
    """prompt [length], completion and mask [2, length], preference [], as `layouts.Comparisons`.

    The completions stay in the data's order: the losses do not ask for it, and a preference model
    reads both orders itself.

    Raises:
      ValueError: on packing.
    """

    TASK_FEATURES = {
        **dict.fromkeys(("inputs", *COMPLETIONS), Spec(tf.int32)),
        "preference": Spec(tf.float32),
    }
    MODEL_FEATURES = {
        "prompt": Spec(tf.int32),
        "completion": Spec(tf.int32, rank=2, sequence_dim=1),
        "mask": Spec(tf.bool, rank=2, sequence_dim=1),
        "preference": Spec(tf.float32, rank=0),
    }

    def _convert(self, example: Example, lengths: Lengths) -> Example:
        length = max(lengths[name] for name in COMPLETIONS)
        pair = [example[name] for name in COMPLETIONS]
        mask = tf.sequence_mask([tf.size(completion) for completion in pair], length)
        return {
            "prompt": self._prompt(example, lengths),
            "completion": tf.stack([_padded(completion, length) for completion in pair]),
            "mask": tf.ensure_shape(mask, [2, length]),
            "preference": tf.reshape(example["preference"], []),
        }

    def get_model_feature_lengths(self, task_feature_lengths: Lengths) -> Lengths:
        """The lengths of the features, along their last axis."""
        completion = max(task_feature_lengths[name] for name in COMPLETIONS)
        return {
            "prompt": self._prompt_length(task_feature_lengths),
            "completion": completion,
            "mask": completion,
            "preference": 1,
        }


class PromptConverter(_Unpacked):
    """prompt [length] and, for judges of text, the texts of a prompt as bytes.

    A text, or a list of texts, of the task becomes "text/<name>" [text_bytes]: what T5X hands to
    its trainer are arrays. `texts_of` reads them again.

    Args:
      pack, use_custom_packing_ops, keep_end: as of `ComparisonConverter`.
      texts: what a judge reads beside the tokens: "inputs", the whole prompt, and "answers".
      text_bytes: room for a text in UTF-8.

    Raises:
      ValueError: on packing; if the task has no such text; from TensorFlow, naming the text, if one
        has no room.
    """

    TASK_FEATURES = {"inputs": Spec(tf.int32)}
    MODEL_FEATURES = {"prompt": Spec(tf.int32)}

    def __init__(
        self,
        pack: bool = False,
        use_custom_packing_ops: bool = False,
        keep_end: int | None = None,
        texts: Sequence[str] = (),
        text_bytes: int = 8192,
    ):
        super().__init__(pack, use_custom_packing_ops, keep_end)
        self._texts = {name: f"text/{name}" for name in texts}
        self._text_bytes = text_bytes
        as_bytes = dict.fromkeys(self._texts.values(), Spec(tf.uint8))
        self.MODEL_FEATURES = {**type(self).MODEL_FEATURES, **as_bytes}

    def _convert(self, example: Example, lengths: Lengths) -> Example:
        converted = {"prompt": self._prompt(example, lengths)}
        for name, feature in self._texts.items():
            converted[feature] = self._as_bytes(_text_of(example, name), name)
        return converted

    def _as_bytes(self, text: tf.Tensor, name: str) -> tf.Tensor:
        whole = text if text.shape.rank == 0 else tf.strings.reduce_join(text + _SEPARATOR)
        read = tf.io.decode_raw(whole, tf.uint8)
        room = self._text_bytes
        told = f"PromptConverter.text_bytes: expected room for every text of {name!r}, got {room}"
        with tf.control_dependencies([tf.debugging.assert_less_equal(tf.size(read), room, told)]):
            return _padded(read, room, _PADDING)

    def get_model_feature_lengths(self, task_feature_lengths: Lengths) -> Lengths:
        """The lengths of the features."""
        texts = dict.fromkeys(self._texts.values(), self._text_bytes)
        return {"prompt": self._prompt_length(task_feature_lengths), **texts}


def texts_of(arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """The texts that a batch of `PromptConverter` holds as bytes, by their names in the task."""
    return {
        name.removeprefix("text/"): [_text(row) for row in rows]
        for name, rows in arrays.items()
        if name.startswith("text/")
    }


def _text_of(example: Example, name: str) -> tf.Tensor:
    text = example.get(f"{name}_pretokenized", example.get(name))
    if text is None or text.dtype != tf.string:
        found = sorted(feature for feature, x in example.items() if x.dtype == tf.string)
        raise ValueError(f"TEXTS: expected texts of the task, {found}, got {name!r}")
    return text


def _text(row: np.ndarray) -> str | list[str]:
    read = row[row != _PADDING].tobytes()
    if not read.endswith(_SEPARATOR):
        return read.decode()
    return [text.decode() for text in read.split(_SEPARATOR)[:-1]]


def _padded(values: tf.Tensor, length: int, padding: int = 0) -> tf.Tensor:
    values = values[:length]
    return tf.ensure_shape(
        tf.pad(values, [[0, length - tf.size(values)]], constant_values=padding), [length]
    )
