"""Every policy against every other: who wins, on the same prompts, judged in both orders."""

from collections.abc import Iterable, Mapping
from itertools import combinations

from jaxtyping import Float
import numpy as np

from po_jax.evaluation.intervals import WinRate, win_rate
from po_jax.evaluation.prompts import Prompts
from po_jax.evaluation.samples import Samples
from po_jax.judges import Judge, Pairs, ask
from po_jax.partitioning import collect, filled_batches

#: (a, b) -> P(a > b) on each prompt, with a's completion shown first and shown second; once where
#: the judge is antisymmetric by construction.
Matches = Mapping[tuple[str, str], Float[np.ndarray, "prompts orders"]]


def judge_matches(
    judge: Judge,
    prompts: Prompts,
    samples: Mapping[str, Samples],
    batch_size: int,
    meetings: Iterable[tuple[str, str]] | None = None,
) -> Matches:
    """Asks about pairs of policies.

    Args:
      judge: it is asked `batch_size` rows at a time, so that it compiles once.
      prompts: the held-out prompts.
      samples: what each policy answered to them.
      batch_size: rows a question; all the questions of a pair are begun before an answer is due.
      meetings: the pairs of policies; None for all.

    Raises:
      ValueError: if there are fewer than two policies, or one did not answer every prompt once.
    """
    if len(samples) < 2:
        raise ValueError(f"judge_matches: expected at least two policies, got {list(samples)}")
    for name, sample in samples.items():
        if len(sample.completion) != len(prompts):
            raise ValueError(
                f"judge_matches: expected {len(prompts)} completions of {name!r}, one for each "
                f"prompt, got {len(sample.completion)}"
            )
    return {
        (a, b): _match(judge, prompts, samples[a], samples[b], batch_size)
        for a, b in (combinations(samples, 2) if meetings is None else meetings)
    }


def _match(
    judge: Judge, prompts: Prompts, first: Samples, second: Samples, batch_size: int
) -> Float[np.ndarray, "prompts orders"]:
    completion = np.stack([first.completion, second.completion], axis=1)
    mask = np.stack([first.mask, second.mask], axis=1)
    pending = []
    for rows, valid in filled_batches(len(prompts), batch_size):
        pairs = Pairs(
            prompts.tokens[rows], completion[rows], mask[rows], prompts.text_rows(rows), valid
        )
        pending.append(ask(judge, pairs))
    answers = []
    for judgement in collect([finish() for finish in pending]):
        by_order = judgement.by_order
        answers.append(judgement.preference[:, None] if by_order is None else by_order)
    return np.concatenate(answers).astype(np.float64)[: len(prompts)]


def win_rates(matches: Matches) -> dict[str, dict[str, WinRate]]:
    """name -> opponent -> win rate, both ways round; the orders are averaged within a prompt."""
    rates: dict[str, dict[str, WinRate]] = {}
    for (a, b), preference in matches.items():
        of_prompt = preference.mean(axis=1)
        rates.setdefault(a, {})[b] = win_rate(of_prompt)
        rates.setdefault(b, {})[a] = win_rate(1.0 - of_prompt)
    return rates


def flips(matches: Matches) -> float | None:
    """The share of verdicts that turn round when the two answers swap places.

    None of a judge that has no order by construction.
    """
    by_order = np.concatenate(list(matches.values()))
    if by_order.shape[1] == 1:
        return None
    return float(np.mean(np.prod(by_order - 0.5, axis=1) < 0.0))


def position_bias(matches: Matches) -> float | None:
    """By how much the judge favours the completion it reads first: P(first wins) - 1/2.

    None of a judge that has no order by construction.
    """
    by_order = np.concatenate(list(matches.values()))
    if by_order.shape[1] == 1:
        return None
    shown_first, shown_second = by_order.T
    return float(np.mean(shown_first - shown_second) / 2)
