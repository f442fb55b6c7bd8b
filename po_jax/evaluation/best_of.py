"""Best of n: of n completions of a prompt, the one that a judge likes best."""

import math

import jax
import numpy as np

from po_jax.evaluation.intervals import Mean
from po_jax.evaluation.prompts import Prompts
from po_jax.judges import Judge, ask_about_all, best_and_worst
from po_jax.partitioning import collect, filled_batches
from po_jax.types import Rollout


def best_of(judge: Judge, prompts: Prompts, rollout: Rollout, batch_size: int) -> Rollout:
    """The completion of each prompt that wins most often against the others.

    Args:
      judge: who chooses; it is asked about every two.
      prompts: that were answered.
      rollout: n completions of each, in host memory.
      batch_size: rows a question.
    """
    tables = []
    for rows, valid in filled_batches(len(prompts), batch_size):
        asked = ask_about_all(
            judge,
            prompts.tokens[rows],
            rollout.completion[rows],
            rollout.mask[rows],
            prompts.text_rows(rows),
            valid,
        )
        tables.append(collect(asked()))
    best, _ = best_and_worst(np.concatenate(tables)[: len(prompts)])
    row = np.arange(len(prompts))
    chosen = jax.tree.map(lambda x: x[row, best][:, None], rollout.replace(prompt=None))
    return chosen.replace(prompt=rollout.prompt)


def kl_bound(n: int, prompts: int) -> Mean:
    """log n - (n - 1)/n nats, which KL(best of n || policy) does not exceed (arXiv 2401.01879).

    It is met where no two completions are one, and no two are judged alike.
    """
    bound = math.log(n) - (n - 1) / n
    return Mean(bound, 0.0, bound, bound, prompts)
