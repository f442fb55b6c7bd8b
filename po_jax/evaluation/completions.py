"""Completions of any prompts by a trained policy, or by its mixture with a reference."""

from collections.abc import Sequence
import dataclasses
import logging

import jax
from jaxtyping import Int
import numpy as np

from po_jax.checkpoints.judges import load_parameters
from po_jax.evaluation.samples import draw
from po_jax.models.base import Model
from po_jax.partitioning import Partitioner
from po_jax.sampling import Strategy
from po_jax.t5.language_model import T5LM
from po_jax.vocabulary import Vocabulary, to_text

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sampled text, and its log-probability under the policy, summed over its tokens."""

    text: str
    logprob: float


def encode(
    texts: Sequence[str], *, vocabulary: Vocabulary, length: int, eos_id: int = 1
) -> Int[np.ndarray, "prompts length"]:
    """Token ids with EOS, cut to `length` as tasks cut them; what is cut is logged.

    Raises:
      ValueError: if there is no text, or one is empty.
    """
    if not texts or not all(text.strip() for text in texts):
        raise ValueError(f"expected one or more prompts, none of them empty, got {list(texts)!r}")
    rows = [[*vocabulary.encode(text), eos_id] for text in texts]
    if cut := sum(len(row) > length for row in rows):
        logger.warning("%d of %d prompts are longer than %d tokens: cut", cut, len(rows), length)
    tokens = np.zeros((len(rows), length), np.int32)
    for out, row in zip(tokens, rows, strict=True):
        out[: len(row)] = row[:length]
    return tokens


def complete(
    prompt: Int[np.ndarray, "prompts length"],
    *,
    language_model: T5LM,
    checkpoint: str,
    vocabulary: Vocabulary,
    partitioner: Partitioner,
    strategy: Strategy,
    batch_size: int,
    samples: int = 1,
    reference: str | None = None,
    beta: float = 0.0,
    random_seed: int = 0,
) -> list[list[Completion]]:
    """Draws `samples` completions of each prompt.

    Args:
      prompt: token ids, 0 is padding.
      language_model: of the policy and of the reference.
      checkpoint: of the policy, in any known format.
      vocabulary: of the policy.
      partitioner: the mesh and its rules.
      strategy: how tokens are drawn.
      batch_size: prompts at a time.
      samples: completions a prompt, at least 1.
      reference: checkpoint of the mixture's other side; needed only where beta > 0.
      beta: weight of the reference in the mixture pi^(1 - beta) mu^beta, in [0, 1].
      random_seed: of the sampling.

    Raises:
      ValueError: a checkpoint that is none or of another model, a value out of its range, or a
        batch that the mesh cannot divide.
    """
    if samples < 1:
        raise ValueError(f"complete: expected at least 1 sample, got {samples}")
    if not 0.0 <= beta <= 1.0 or (beta > 0.0 and reference is None):
        raise ValueError(
            f"complete: expected beta in [0, 1], and a reference where it is not 0, got beta "
            f"{beta} and reference {reference}"
        )
    holder = Model(language_model=language_model)
    mu = load_parameters(holder, reference, partitioner) if beta > 0.0 else None
    rollout = draw(
        language_model,
        strategy,
        load_parameters(holder, checkpoint, partitioner),
        mu,
        prompt,
        (beta,) * samples,
        jax.random.key(random_seed),
        batch_size=batch_size,
        partitioner=partitioner,
    )
    logprob = rollout.policy_logprob.sum(axis=-1)
    return [
        [Completion(to_text(vocabulary, row), float(p)) for row, p in zip(*group, strict=True)]
        for group in zip(rollout.completion, logprob, strict=True)
    ]
