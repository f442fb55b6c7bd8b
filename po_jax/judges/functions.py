"""Any Python callable on strings as an annotator: an API judge, a metric, a person.

Calls run in threads, so that slow ones wait together and the device works meanwhile.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import jax
from jaxtyping import Bool, Int
import numpy as np

from po_jax.judges.judge import AnnotatorError, Judgement, Tokens
from po_jax.vocabulary import Vocabulary, to_text

_FINITE = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))


class _Texts:
    """Decodes token ids and keeps a pool of threads; what both annotators below share."""

    def __init__(self, vocabulary: Vocabulary, threads: int, name: str):
        if threads < 1:
            raise ValueError(f"{name}: expected threads >= 1, got {threads}")
        self._vocabulary = vocabulary
        self._threads = threads

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="annotator")

    def pairs(self, prompt: Tokens, completion: Tokens, mask: Tokens) -> list[tuple[str, str, str]]:
        """(prompt, first, second) as text; waits for the tokens."""
        prompt, completion, mask = jax.device_get((prompt, completion, mask))
        texts = []
        for row, pair, kept in zip(prompt, completion, mask, strict=True):
            first, second = (tokens[keep] for tokens, keep in zip(pair, kept, strict=True))
            asked = (row, first, second)
            texts.append(tuple(to_text(self._vocabulary, tokens) for tokens in asked))
        return texts


def _answer(future: Future, pair: tuple[str, str, str], low: float, high: float) -> float:
    """The number a call returned, in [low, high]; anything else names the pair."""
    on = "prompt {!r}, first {!r}, second {!r}".format(*(text[:200] for text in pair))
    try:
        answer = future.result()
    except Exception as error:
        raise AnnotatorError(f"the annotator raised {error!r} on {on}") from error
    try:
        number = float(answer)
    except (TypeError, ValueError) as error:
        raise AnnotatorError(f"expected a number, got {answer!r} on {on}") from error
    if not low <= number <= high:
        raise AnnotatorError(f"expected an answer in [{low}, {high}], got {number} on {on}")
    return number


class CallableAnnotator:
    """P(first > second | prompt) from `judge(prompt, first, second)`.

    Args:
      judge: three strings to a preference in [0, 1]; called from several threads at once.
      vocabulary: of the policy.
      both_orders: also asks with the summaries exchanged, and averages: no favour to a position.
      threads: calls under way at once, at least 1.

    Raises:
      AnnotatorError: when answering, if the judge raises or answers outside [0, 1].
    """

    def __init__(
        self,
        judge: Callable[[str, str, str], float],
        vocabulary: Vocabulary,
        both_orders: bool = False,
        threads: int = 16,
    ):
        self._judge = judge
        self._both_orders = both_orders
        self._texts = _Texts(vocabulary, threads, "CallableAnnotator")

    def begin(
        self,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
        mask: Bool[Tokens, "batch 2 length"],
    ) -> Callable[[], Judgement]:
        """Starts the calls, once the tokens are there."""
        pairs = self._texts.pairs(prompt, completion, mask)
        exchanged = [(text, second, first) for text, first, second in pairs]
        asked = pairs + exchanged if self._both_orders else pairs
        futures = [self._texts.pool.submit(self._judge, *pair) for pair in asked]

        def finish() -> Judgement:
            answers = [_answer(f, p, 0.0, 1.0) for f, p in zip(futures, asked, strict=True)]
            preference = np.asarray(answers, np.float32)
            if self._both_orders:
                forward, backward = np.split(preference, 2)
                preference = 0.5 * (forward + 1.0 - backward)
            return Judgement(preference=preference)

        return finish


class CallableReward:
    """Bradley-Terry preferences from `reward(prompt, completion)`: P = sigmoid(r1 - r2).

    Args:
      reward: two strings to a finite number; called from several threads at once.
      vocabulary: of the policy.
      threads: calls under way at once, at least 1.

    Raises:
      AnnotatorError: when answering, if the reward raises or is not a finite number.
    """

    def __init__(
        self, reward: Callable[[str, str], float], vocabulary: Vocabulary, threads: int = 16
    ):
        self._reward = reward
        self._texts = _Texts(vocabulary, threads, "CallableReward")

    def begin(
        self,
        prompt: Int[Tokens, "batch prompt_length"],
        completion: Int[Tokens, "batch 2 length"],
        mask: Bool[Tokens, "batch 2 length"],
    ) -> Callable[[], Judgement]:
        """Starts the calls, once the tokens are there."""
        pairs = self._texts.pairs(prompt, completion, mask)
        futures = [
            self._texts.pool.submit(self._reward, text, answer)
            for text, *both in pairs
            for answer in both
        ]

        def finish() -> Judgement:
            answers = [_answer(f, pairs[i // 2], *_FINITE) for i, f in enumerate(futures)]
            reward = np.asarray(answers, np.float32).reshape(-1, 2)
            preference = 0.5 * (1.0 + np.tanh(0.5 * (reward[:, 0] - reward[:, 1])))
            return Judgement(preference=preference, reward=reward)

        return finish
