"""Every policy against every other: who wins, on the same prompts, judged in both orders."""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from po_jax.evaluation.intervals import WinRate, win_rate
from po_jax.evaluation.samples import Samples
from po_jax.judges.judge import Annotator

#: (a, b) -> P(a > b) on each prompt, with a's completion shown first and shown second.
Matches = Mapping[tuple[str, str], Float[np.ndarray, "prompts 2"]]


def judge_matches(
    annotator: Annotator,
    prompt: Int[np.ndarray, "prompts prompt_length"],
    samples: Mapping[str, Samples],
    batch_size: int,
    place: Callable[[Any], Any] = lambda arrays: arrays,
) -> Matches:
    """Asks about every pair of policies, once in each order.

    Args:
      annotator: the judge. It is asked `batch_size` rows at a time, so it compiles once.
      prompt: token ids of the held-out prompts.
      samples: what each policy answered to them.
      batch_size: rows a question; all the questions of a pair are begun before an answer is due.
      place: puts the arrays of a question where the annotator works; on the host by default.

    Raises:
      ValueError: if there are fewer than two policies, or one did not answer every prompt once.
    """
    if len(samples) < 2:
        raise ValueError(f"judge_matches: expected at least two policies, got {list(samples)}")
    for name, sample in samples.items():
        if len(sample.completion) != len(prompt):
            raise ValueError(
                f"judge_matches: expected {len(prompt)} completions of {name!r}, one a prompt, "
                f"got {len(sample.completion)}"
            )

    def judge(first: Samples, second: Samples) -> Float[np.ndarray, " prompts"]:
        return _judge(annotator, prompt, first, second, batch_size, place)

    return {
        (a, b): np.stack(
            [
                judge(samples[a], samples[b]),
                1.0 - judge(samples[b], samples[a]),
            ],
            axis=1,
        )
        for a, b in combinations(samples, 2)
    }


def _judge(annotator, prompt, first, second, batch_size, place) -> Float[np.ndarray, " prompts"]:
    """P(first > second) on each prompt."""
    completion = np.stack([first.completion, second.completion], axis=1)
    mask = np.stack([first.mask, second.mask], axis=1)
    count = len(prompt)
    pending = []
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size) % count  # the last batch is filled up
        pending.append(annotator.begin(*place((prompt[rows], completion[rows], mask[rows]))))
    answers = [np.asarray(finish().preference, np.float64) for finish in pending]
    return np.concatenate(answers)[:count]


def win_rates(matches: Matches) -> dict[str, dict[str, WinRate]]:
    """name -> opponent -> win rate, both ways round; the orders are averaged within a prompt."""
    rates: dict[str, dict[str, WinRate]] = {}
    for (a, b), preference in matches.items():
        averaged = preference.mean(axis=1)
        rates.setdefault(a, {})[b] = win_rate(averaged)
        rates.setdefault(b, {})[a] = win_rate(1.0 - averaged)
    return rates


def position_bias(matches: Matches) -> float:
    """By how much the judge favours the completion it reads first: P(first wins) - 1/2."""
    shown_first, shown_second = np.concatenate(list(matches.values())).T
    return float(np.mean(shown_first - shown_second) / 2)
