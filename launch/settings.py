"""What gin files build of seqio tasks, and what they check of each other."""

from collections.abc import Callable, Mapping, Sequence
import importlib
from typing import Any

import seqio

from po_jax import processes
from po_jax.checkpoints.load import open_checkpoint
from po_jax.data import layouts, seqio_source
from po_jax.data.corpus import BatchStream, Layout
from po_jax.evaluation.along import along_training
from po_jax.judges import Judge, RougeJudge
from po_jax.language_model import LanguageModel, require_vocabulary, trained_part
from po_jax.models.base import Model


def batch_stream(
    task: str,
    split: str,
    layout: Layout,
    batch_size: int,
    language_model: LanguageModel,
    seed: int = 0,
    module: str | None = None,
) -> BatchStream:
    """Batches of a split of a task.

    Args:
      task: name of a seqio task or mixture.
      split: of the task.
      layout: which arrays a batch has.
      batch_size: rows.
      language_model: that will read the batches.
      seed: of the order.
      module: imported first, because it registers the task; None if it is registered already.

    Raises:
      ValueError: what `seqio_source.stream` raises, if another process reads other data, or if the
        task's vocabulary is not one that the model can read: more ids than it has embeddings, or
        another padding or EOS.
    """
    check_vocabulary(task, language_model, module)
    found = seqio_source.stream(task, split, layout, batch_size, seed)
    if processes.count() > 1:
        processes.alike({f"the data of {task!r}, {split}": found.corpus.fingerprint()})
    return found


def check_vocabulary(task: str, language_model: LanguageModel, module: str | None = None) -> None:
    """Holds a task's vocabulary against the model that will read it.

    Raises:
      ValueError: if the model has fewer embeddings than it has ids, or another padding or EOS.
    """
    require_vocabulary(f"task {task!r}", vocabulary(task, module), language_model)


def vocabulary(task: str, module: str | None = None) -> seqio.Vocabulary:
    """The vocabulary of a task's inputs."""
    _import(module)
    return seqio_source.vocabulary(task)


def task_metrics(task: str, module: str | None = None) -> Callable[..., dict[str, float]] | None:
    """The task's own metrics of completions, or None."""
    _import(module)
    return seqio_source.task_metrics(task)


def prompt_length(lengths: Mapping[str, int]) -> int:
    """Tokens a prompt may have, from T5X's TASK_FEATURE_LENGTHS."""
    return layouts.length_of(lengths, "inputs")


def completion_length(lengths: Mapping[str, int]) -> int:
    """Tokens a completion may have, from T5X's TASK_FEATURE_LENGTHS."""
    return layouts.length_of(lengths, "targets")


def parameter_axes(language_model: LanguageModel) -> Any:
    """The logical axis names of the parameters that are trained, for their optimiser."""
    return trained_part(language_model, language_model.parameter_axes())


def check_checkpoints(**paths: str | Mapping[str, str] | None) -> None:
    """Opens checkpoints that will be wanted, before anything is loaded.

    Args:
      **paths: by the name of the setting, a path, several paths or patterns by name, or None.

    Raises:
      ValueError: if there is no checkpoint; names the setting.
    """
    for setting, given in paths.items():
        named = along_training(given)[0] if isinstance(given, Mapping) else {"": given}
        for name, path in named.items():
            if path is None:
                continue
            try:
                open_checkpoint(path)
            except ValueError as error:
                where = f"{setting}, {name!r}" if name else setting
                raise ValueError(f"{where}: {error}") from error


def check_algorithm(betas: Any = None, online: bool | None = None) -> None:
    """Holds the algorithm against the run, before anything is loaded.

    Args:
      betas: weights that the algorithm draws its completions with; None for the data set's.
      online: whether the run draws completions; None where no policy is trained.

    Raises:
      ValueError: if the two do not fit.
    """
    if online and betas is None:
        raise ValueError(
            "online.gin draws completions, but the algorithm takes the data set's (its BETAS are "
            "None): give an online algorithm, such as gin/algorithms/online_ipo.gin, or offline.gin"
        )
    if online is False and betas is not None:
        raise ValueError(
            f"offline.gin takes the data set's completions, but the algorithm draws them with "
            f"BETAS {betas}: give an offline algorithm, such as gin/algorithms/ipo.gin, or "
            "online.gin"
        )


def check_dropout(rate: float) -> None:
    """Raises ValueError if a policy would be trained with dropout, which its reference has not."""
    if rate:
        raise ValueError(
            "DROPOUT_RATE: expected 0 for a policy, which would disagree with its own reference "
            f"otherwise, got {rate} (T5X's finetune.gin sets 0.1; gin/t5x/offline.gin and "
            "online.gin, which include it, set 0)"
        )


def check_features(task: str, model: Model, module: str | None = None) -> None:
    """Holds a task's features against those that the model's converter for T5X reads.

    Raises:
      ValueError: if the task lacks one.
    """
    _import(module)
    assert model.FEATURE_CONVERTER_CLS is not None
    wanted = model.FEATURE_CONVERTER_CLS(pack=False).TASK_FEATURES
    found = seqio_source.known(task).output_features
    if set(wanted) - set(found):
        raise ValueError(
            f"MIXTURE_OR_TASK_NAME: expected a task with {sorted(wanted)}, as this run reads them, "
            f"got {task!r} with {sorted(found)}"
        )


def check_texts(judge: Judge, texts: Sequence[str]) -> None:
    """Holds the texts that travel through T5X against the judge.

    Raises:
      ValueError: if ROUGE would have nothing to compare with.
    """
    if isinstance(judge, RougeJudge) and "answers" not in texts:
        raise ValueError(f"TEXTS: expected ('answers',) for a RougeJudge, got {tuple(texts)}")


def checked(model: Model, checks: Sequence[None]) -> Model:
    """The model, once gin has made the checks; T5X's commands make it before they read data."""
    del checks
    return model


def _import(module: str | None) -> None:
    if module is None:
        return
    try:
        importlib.import_module(module)
    except (ModuleNotFoundError, SyntaxError) as error:
        raise ValueError(
            f"expected MIXTURE_OR_TASK_MODULE to name a module, got {module!r}: {error}"
        ) from error
