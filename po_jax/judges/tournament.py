"""Several completions of each prompt, all judged against each other: which is the best of them."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int
import numpy as np

from po_jax.judges.judge import Judge, Pairs, ask

Array = Any  # of the devices or of the host


def ask_about_all(
    judge: Judge,
    prompt: Int[Array, "batch prompt_length"],
    completion: Int[Array, "batch k length"],
    mask: Bool[Array, "batch k length"],
    texts: Mapping[str, Sequence[Any]] | None = None,
    valid: Bool[np.ndarray, " batch"] | None = None,
) -> Callable[[], Float[Array, "batch k k"]]:
    """`ask` about every two of k completions of each prompt; the function waits for the answers.

    Args:
      judge: it is asked k (k - 1) / 2 times.
      prompt, completion, mask, texts, valid: as in `Pairs`, with k completions, at least 2.

    Returns:
      P(y_i > y_j), and 1/2 where i = j.
    """
    k = mask.shape[1]
    meetings = list(combinations(range(k), 2))
    asked = []
    for meeting in meetings:
        places = np.array(meeting)
        pairs = Pairs(prompt, completion[:, places], mask[:, places], texts or {}, valid)
        asked.append(ask(judge, pairs))

    def finish() -> Float[Array, "batch k k"]:
        answers = dict(zip(meetings, (answer().preference for answer in asked), strict=True))
        library = np if isinstance(answers[0, 1], np.ndarray) else jnp
        even = library.full_like(answers[0, 1], 0.5)

        def entry(i: int, j: int) -> Array:
            if i == j:
                return even
            return answers[i, j] if i < j else 1.0 - answers[j, i]

        rows = [library.stack([entry(i, j) for j in range(k)], axis=-1) for i in range(k)]
        return library.stack(rows, axis=-2)

    return finish


def best_and_worst(
    preference: Float[Array, "batch k k"],
) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
    """The places of the completions that win most and least, by their mean P(y > others).

    Of those that win alike the best is the first and the worst the last, so they are two.
    """
    wins = preference.mean(axis=-1)
    last = preference.shape[-1] - 1
    return wins.argmax(axis=-1), last - wins[..., ::-1].argmin(axis=-1)
