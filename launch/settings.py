"""What gin files build of seqio tasks: batches, vocabularies and lengths."""

from collections.abc import Mapping
import importlib

import jax
import seqio

from po_jax.data import seqio_source
from po_jax.data.corpus import BatchStream, Layout
from po_jax.t5.language_model import T5LM


def batches(
    task: str,
    split: str,
    layout: Layout,
    batch_size: int,
    language_model: T5LM,
    seed: int = 0,
    module: str | None = None,
) -> BatchStream:
    """This process's batches of a split of a task.

    Args:
      task: name of a seqio task or mixture.
      split: of the task.
      layout: which arrays a batch has.
      batch_size: of the global batch.
      language_model: that will read the batches.
      seed: of the order.
      module: imported first, because it registers the task; None if it is registered already.

    Raises:
      ValueError: what `seqio_source.stream` raises, or if the task's vocabulary has more ids than
        the model has embeddings.
    """
    ids, rows = vocabulary(task, module).vocab_size, language_model.config.vocab_size
    if ids > rows:
        raise ValueError(
            f"task {task!r}: expected a vocabulary of at most {rows} ids, as many as the model has "
            f"embeddings, got {ids}: give the task the model's own vocabulary"
        )
    return seqio_source.stream(
        task,
        split,
        layout,
        batch_size,
        seed=seed,
        shard_index=jax.process_index(),
        num_shards=jax.process_count(),
    )


def vocabulary(task: str, module: str | None = None) -> seqio.Vocabulary:
    """The vocabulary of a task's inputs."""
    _import(module)
    return seqio.get_mixture_or_task(task).output_features["inputs"].vocabulary


def prompt_length(lengths: Mapping[str, int]) -> int:
    """Tokens a prompt may have, from T5X's TASK_FEATURE_LENGTHS."""
    return lengths["inputs"]


def completion_length(lengths: Mapping[str, int]) -> int:
    """Tokens a completion may have, from T5X's TASK_FEATURE_LENGTHS."""
    return lengths["targets"]


def _import(module: str | None) -> None:
    if module is None:
        return
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"expected MIXTURE_OR_TASK_MODULE to name a module, got {module!r}: {error}"
        ) from error
