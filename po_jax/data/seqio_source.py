"""Batches of a seqio task or mixture; the only part of po_jax that imports seqio.

A split is read and tokenised once and kept in memory; `BatchStream` then serves it by step. The
features are those of `tasks.registration`; `inputs` and `targets` are T5's, so that tasks written
for T5X do for prompts and for supervised training. Their preprocessing must not be random.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import logging
from typing import Any

import numpy as np
import seqio

from po_jax.data.corpus import WHERE, BatchStream, Corpus, Layout, Ragged
from po_jax.data.layouts import COMPLETIONS
from po_jax.data.remarks import remarks
from po_jax.names import nearest

logger = logging.getLogger(__name__)

_PREFERENCE = "preference"
_READ_AT_ONCE = 512  # examples; one by one, TensorFlow takes three times as long


def stream(
    task: str,
    split: str,
    layout: Layout,
    batch_size: int,
    seed: int = 0,
) -> BatchStream:
    """Batches of one split; what is cut or doubled on the way is counted and logged (`remarks`).

    Args:
      task: name of a registered task or mixture.
      split: name of the split.
      layout: which features become which arrays, and their lengths.
      batch_size: rows.
      seed: of the order and of the places of the completions; not negative.

    Raises:
      ValueError: as `read` does.
    """
    corpus = read(task, split, layout)
    for remark in remarks(corpus, layout, vocabulary(task)):
        logger.warning("%s, %s: %s", task, split, remark)
    return BatchStream(corpus, layout, batch_size, seed)


def known(task: str) -> seqio.Task | seqio.Mixture:
    """A registered task or mixture.

    Raises:
      ValueError: there is none of this name; names the nearest.
    """
    names = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
    if task not in names:
        hint = nearest(task, names) or f" Registered: {', '.join(sorted(names))}."
        raise ValueError(f"no task {task!r} is registered.{hint}")
    return seqio.get_mixture_or_task(task)


def vocabulary(task: str) -> seqio.Vocabulary:
    """The vocabulary of a task's inputs.

    Raises:
      ValueError: no such task, or it has no inputs.
    """
    features = known(task).output_features
    if "inputs" not in features:
        raise ValueError(f"expected {task} with ['inputs'], got only {list(features)}")
    return features["inputs"].vocabulary


def read(task: str, split: str, layout: Layout) -> Corpus:
    """Reads and tokenises a split of a task, or of all tasks of a mixture.

    Raises:
      ValueError: unknown task or split, a feature that the layout needs is missing, an empty split,
        an empty completion, or a preference outside [0, 1].
    """
    provider = known(task)
    is_mixture = isinstance(provider, seqio.Mixture)
    parts = []
    for subtask in seqio.get_subtasks(provider):
        rate = provider.get_rate(subtask) if is_mixture else 1.0
        parts.append(_read_task(subtask, split, layout.features, rate))
    return parts[0] if len(parts) == 1 else Corpus.joined(parts)


def task_metrics(
    task: str,
) -> Callable[[Mapping[str, Sequence[Any]], Sequence[str]], dict[str, float]] | None:
    """What the `metric_fns` of a task say of completions, given its texts; None if it has none.

    A target is what the task's postprocessor makes of `targets`, or of the first of `answers`.
    Names of several functions must differ.
    """
    provider = known(task)
    functions = [] if isinstance(provider, seqio.Mixture) else provider.predict_metric_fns
    if not functions:
        return None

    def metrics(texts: Mapping[str, Sequence[Any]], completions: Sequence[str]) -> dict[str, float]:
        examples = [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
        targets = [
            provider.postprocess_fn(_target(example), example=_encoded(example), is_target=True)
            for example in examples
        ]
        predictions = [
            provider.postprocess_fn(text, example=_encoded(example), is_target=False)
            for text, example in zip(completions, examples, strict=True)
        ]
        found = {}
        for function in functions:
            for name, value in function(targets, predictions).items():
                found[name] = float(getattr(value, "value", value))
        return found

    return metrics


def _target(example: Mapping[str, Any]) -> str:
    return (
        example["targets"] if "targets" in example else next(iter(example.get("answers", [])), "")
    )


def _encoded(example: Mapping[str, Any]) -> dict[str, Any]:
    """An example as seqio's postprocessors get it: texts as bytes."""
    return {
        name: [text.encode() for text in value] if isinstance(value, list) else value.encode()
        for name, value in example.items()
    }


def _read_task(task: seqio.Task, split: str, features: Mapping[str, int], rate: float) -> Corpus:
    if split not in task.splits:
        raise ValueError(f"expected a split of {task.name} in {list(task.splits)}, got {split!r}")
    if missing := set(features) - set(task.output_features):
        raise ValueError(
            f"expected {task.name} with {sorted(missing)}, got only {list(task.output_features)}"
        )
    examples = task.get_dataset(sequence_length=None, split=split, shuffle=False)
    batches = list(examples.ragged_batch(_READ_AT_ONCE))
    where = f"{task.name}, {split}"
    if not batches:
        raise ValueError(f"{where}: expected examples, got none")
    tokens = {name: _ragged([batch[name] for batch in batches]) for name in features}
    size = len(tokens["inputs"].lengths)
    texts: dict[str, list[Any]] = {
        WHERE: [f"{where}, example {number}" for number in range(1, size + 1)]
    }
    for name, value in batches[0].items():
        if value.dtype == "string":
            try:
                column = [text for batch in batches for text in _texts(batch[name])]
            except UnicodeDecodeError as error:
                found = f"{error.object[:60]!r}"
                raise ValueError(f"{where}: expected {name} in UTF-8, got {found}") from error
            texts[name.removesuffix("_pretokenized")] = column
    preference = None
    if _PREFERENCE in task.output_features:
        # A number, or a sequence of one.
        parts = [np.asarray(batch[_PREFERENCE].numpy()).reshape(-1) for batch in batches]
        preference = np.concatenate(parts)
    words = task.output_features["inputs"].vocabulary
    _check(tokens, preference, words.eos_id, where)
    return Corpus(tokens, texts, [size], [rate], preference, words.pad_id)


def _ragged(batches: list[Any]) -> Ragged:
    """Of TensorFlow's ragged tensors, or of plain ones where all sequences are equally long."""
    if hasattr(batches[0], "row_lengths"):
        lengths = np.concatenate([batch.row_lengths().numpy() for batch in batches])
        return Ragged(np.concatenate([batch.flat_values.numpy() for batch in batches]), lengths)
    rows = np.concatenate([batch.numpy() for batch in batches])
    return Ragged(rows.reshape(-1), np.full(len(rows), rows.shape[1]))


def _texts(batch: Any) -> Iterable[str | list[str]]:
    """The text, or list of texts, of each row of a tensor of strings."""
    rows = batch.to_list() if hasattr(batch, "to_list") else batch.numpy().tolist()
    for row in rows:
        yield [text.decode() for text in row] if isinstance(row, list) else row.decode()


def _check(
    tokens: Mapping[str, Ragged], preference: np.ndarray | None, eos: int | None, where: str
) -> None:
    for name in set(tokens) & {"targets", *COMPLETIONS}:
        empty = np.flatnonzero(tokens[name].lengths == tokens[name].count(eos))  # EOS alone
        if len(empty):
            raise ValueError(f"{where}: {name} is empty in example {empty[0] + 1}")
    if preference is None:
        return
    wrong = np.flatnonzero(~((preference >= 0) & (preference <= 1)))  # NaN as well
    if len(wrong):
        found = f"{preference[wrong[0]]} in example {wrong[0] + 1}"
        raise ValueError(f"{where}: expected preferences in [0, 1], got {found}")
