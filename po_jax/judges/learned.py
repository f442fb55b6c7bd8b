"""A trained T5 as a judge, which shares the policy's vocabulary and stays on the devices."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from po_jax.checkpoints.fingerprint import fingerprint
from po_jax.checkpoints.load import load_parameters
from po_jax.judges.judge import Judgement, Pairs
from po_jax.judges.models import JudgeModel
from po_jax.language_model import as_read
from po_jax.like_lengths import reading_by_length
from po_jax.partitioning import Partitioner
from po_jax.types import Params


@dataclass(frozen=True)
class LearnedJudge:
    """A preference or reward model and its parameters, asked on the mesh where they lie.

    Both kinds are antisymmetric: a preference model reads both orders in one pass.

    Attributes:
      model: how it reads and answers.
      params: its parameters, on the devices.
      partitioner: the mesh and its rules.
    """

    model: JudgeModel
    params: Params
    partitioner: Partitioner
    antisymmetric = True

    @cached_property
    def _reading(self) -> JudgeModel:
        """The model, as it reads a batch of rows of different lengths."""
        model = copy(self.model)
        model.language_model = reading_by_length(model.language_model, self.partitioner.lengths)
        return model

    @property
    def name(self) -> str:
        return self.model.kind

    def made_from(self) -> dict[str, Any]:
        """What tells this judge from others, as JSON."""
        return {"name": self.name, "fingerprint": fingerprint(self.params)}

    def begin(self, pairs: Pairs) -> Callable[[], Judgement]:
        """Queues the judging on the devices; completions are padding where their mask is false."""
        prompt, completion = self.partitioner.distribute((pairs.prompt, pairs.completion))
        with self.partitioner.activate():
            judgement = self._reading.judge(self.params, prompt, completion)
        return lambda: judgement


def trained_judge(
    model: JudgeModel, checkpoint: str | None, partitioner: Partitioner
) -> LearnedJudge:
    """The judge that a checkpoint of this model is, its parameters kept as they are read.

    Raises:
      ValueError: if there is no such checkpoint, or it is of another model or kind of model.
    """
    if checkpoint is None:
        raise ValueError(
            "expected JUDGE_CHECKPOINT_PATH to name the checkpoint of "
            f"{model.kind} (train one with gin/runs/preference_model.gin or "
            "gin/runs/reward_model.gin), got None"
        )
    network = model.language_model
    params = load_parameters(network, checkpoint, partitioner, kinds=[model.kind])
    return LearnedJudge(model, as_read(network, params), partitioner)
