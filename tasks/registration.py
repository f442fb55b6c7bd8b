"""The three kinds of task, and how a data set's texts become their features.

| kind | text features of a row | output features |
|---|---|---|
| SFT | inputs, targets, answers | inputs, targets |
| prompts | inputs, answers | inputs |
| comparisons | inputs, completion_1, completion_2, preference | the same |

`preference` is P(completion_1 > completion_2) in [0, 1]. `answers`, a list of texts that may be
empty, are what ROUGE compares with; they are not tokenised. EOS follows every text, and is lost
where a text is cut to the length asked for, as in T5. A row may say of a text that it was cut
already, as `targets_ended` or `completion_1_ended`: where that is false, no EOS follows.
"""

from collections.abc import Callable, Mapping, Sequence
import os
from typing import Any

from etils import epath
import seqio
import tensorflow as tf

from po_jax import files
from po_jax.data.records import Row
from tasks import metrics

SPLITS = ("train", "validation", "test")

ReadRows = Callable[[str], Sequence[Row]]  # split -> rows
Preprocessor = Callable[[tf.data.Dataset], tf.data.Dataset]


def add_sft(
    name: str,
    source: ReadRows | seqio.DataSource,
    vocabulary: seqio.Vocabulary,
    preprocessors: Sequence[Preprocessor] = (),
) -> seqio.Task:
    """Registers inputs -> targets, measured by ROUGE against the answers."""
    return seqio.TaskRegistry.add(
        name,
        source=_source(source),
        preprocessors=[*preprocessors, *_TOKENISE],
        output_features=dict.fromkeys(("inputs", "targets"), seqio.Feature(vocabulary)),
        postprocess_fn=metrics.answers_or_prediction,
        metric_fns=[metrics.rouge],
    )


def add_prompts(
    name: str,
    source: ReadRows | seqio.DataSource,
    vocabulary: seqio.Vocabulary,
    preprocessors: Sequence[Preprocessor] = (),
) -> seqio.Task:
    """Registers inputs alone: what online algorithms sample from."""
    return seqio.TaskRegistry.add(
        name,
        source=_source(source),
        preprocessors=[*preprocessors, *_TOKENISE],
        output_features={"inputs": seqio.Feature(vocabulary)},
    )


def add_comparisons(
    name: str, source: ReadRows | seqio.DataSource, vocabulary: seqio.Vocabulary
) -> seqio.Task:
    """Registers two completions of a prompt, measured by how often scores agree with labels."""
    tokens = dict.fromkeys(("inputs", "completion_1", "completion_2"), seqio.Feature(vocabulary))
    preference = seqio.Feature(seqio.PassThroughVocabulary(size=0), add_eos=False, dtype=tf.float32)
    return seqio.TaskRegistry.add(
        name,
        source=_source(source),
        preprocessors=[*_TOKENISE, _measurable],
        output_features={**tokens, "preference": preference},
        metric_objs=[metrics.PreferenceAccuracy],
    )


def _append_eos(
    dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """EOS after every text that came to its end."""

    def take_off(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        without = {}
        for name in output_features:
            if f"{name}_ended" in example:
                superfluous = tf.cast(~example[f"{name}_ended"], tf.int32)
                without[name] = example[name][: tf.size(example[name]) - superfluous]
        return {**example, **without}

    return seqio.preprocessors.append_eos(dataset, output_features).map(take_off)


def _measurable(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The preference as a sequence of one: seqio's Evaluator asks every feature for its length."""
    return dataset.map(lambda example: {**example, "preference": example["preference"][None]})


_TOKENISE = (seqio.preprocessors.tokenize, _append_eos)


def _source(source: ReadRows | seqio.DataSource) -> seqio.DataSource:
    if isinstance(source, seqio.DataSource):
        return source

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        return _dataset(source(split))

    return seqio.FunctionDataSource(dataset, splits=SPLITS)


def _dataset(rows: Sequence[Row]) -> tf.data.Dataset:
    if not rows:
        raise ValueError("expected rows of a split, got none")
    for number, row in enumerate(rows, start=1):
        if missing := rows[0].keys() - row.keys():
            raise ValueError(f"expected {sorted(missing)} in row {number}, got only {sorted(row)}")
    return tf.data.Dataset.from_tensor_slices(
        {key: _column([row[key] for row in rows]) for key in rows[0]}
    )


def _column(values: list[Any]) -> tf.Tensor | tf.RaggedTensor:
    if isinstance(values[0], list):
        texts = tf.constant([text for row in values for text in row], tf.string)
        return tf.RaggedTensor.from_row_lengths(texts, [len(row) for row in values])
    dtypes = {bool: tf.bool, float: tf.float32, int: tf.float32}
    return tf.constant(values, dtypes.get(type(values[0]), tf.string))


def folder(variable: str) -> epath.Path:
    """The folder, here or in a bucket, that an environment variable names.

    Raises:
      ValueError: the variable is not set, or names a store that cannot be read.
    """
    if not os.environ.get(variable):
        raise ValueError(f"expected {variable} to name the data's folder, got no such variable")
    return files.absolute(os.environ[variable])
