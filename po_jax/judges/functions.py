"""Any Python function on strings as a judge: an API, a metric, a person.

Calls run in threads, so that slow ones wait together and the devices work meanwhile.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property

import numpy as np

from po_jax.interruption import Interrupted, check
from po_jax.judges.judge import JudgeError, Judgement, Pairs
from po_jax.vocabulary import Vocabulary

_FINITE = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))

_PAUSE = 0.1  # seconds between looks at whether a run is asked to stop


class _Calls:
    """A function on strings, called in a pool of threads."""

    def __init__(self, function: Callable[..., float], threads: int, where: str):
        if threads < 1:
            raise ValueError(f"{where}: expected threads >= 1, got {threads}")
        self._function = function
        self._threads = threads

    @property
    def name(self) -> str:
        """The function's own name."""
        return getattr(self._function, "__name__", type(self._function).__name__)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="judge")

    def begin(self, questions: Sequence[tuple[str, ...]]) -> list[Future]:
        """Starts a call for each question."""
        return [self._pool.submit(self._function, *question) for question in questions]

    def _wait(self, future: Future) -> None:
        """Returns when a call is over, or when a run is asked to stop: then no more are begun."""
        try:
            check()
            while not wait([future], timeout=_PAUSE).done:
                check()
        except Interrupted:
            self._pool.shutdown(wait=False, cancel_futures=True)
            del self._pool  # of another run, the next call makes another
            raise

    def answer(self, future: Future, question: tuple[str, ...], low: float, high: float) -> float:
        """The number that a call returned, in [low, high]; anything else names the question."""
        on = ", ".join(repr(text[:200]) for text in question)
        self._wait(future)
        try:
            answer = future.result()
        except Exception as error:
            raise JudgeError(f"the judge {self.name} raised {error!r} on {on}") from error
        try:
            number = float(answer)
        except (TypeError, ValueError, OverflowError) as error:
            raise JudgeError(
                f"the judge {self.name}: expected a number, got {answer!r:.60} on {on}"
            ) from error
        if not low <= number <= high:
            raise JudgeError(
                f"the judge {self.name}: expected an answer in [{low}, {high}], got {number} "
                f"on {on}"
            )
        return number


class CallableJudge:
    """P(first > second | prompt) from `judge(prompt, first, second)`.

    Args:
      judge: three strings to a preference in [0, 1]; called from several threads at once. It gets
        the whole prompt, and completions as the policy wrote them.
      vocabulary: of the policy.
      antisymmetric: the function is known to say 1 - p where the completions change places; else
        both orders are asked and averaged.
      threads: calls under way at once, at least 1.

    Raises:
      JudgeError: when answering, if the function raises or answers outside [0, 1].
    """

    def __init__(
        self,
        judge: Callable[[str, str, str], float],
        vocabulary: Vocabulary,
        antisymmetric: bool = False,
        threads: int = 16,
    ):
        self._calls = _Calls(judge, threads, "CallableJudge")
        self._vocabulary = vocabulary
        self.name = self._calls.name
        self.antisymmetric = antisymmetric

    def begin(self, pairs: Pairs) -> Callable[[], Judgement]:
        """Starts the calls, once the tokens are there."""
        texts = pairs.completion_texts(self._vocabulary)
        prompts = pairs.prompt_texts(self._vocabulary)
        rows = pairs.asked()
        questions = [(prompts[row], *texts[row]) for row in rows]
        futures = self._calls.begin(questions)

        def finish() -> Judgement:
            preference = np.full(len(texts), 0.5, np.float32)
            for row, future, question in zip(rows, futures, questions, strict=True):
                preference[row] = self._calls.answer(future, question, 0.0, 1.0)
            return Judgement(preference)

        return finish


class CallableReward:
    """Bradley-Terry preferences from `reward(prompt, completion)`: P = sigmoid(r1 - r2).

    Args:
      reward: two strings to a finite number; called from several threads at once.
      vocabulary: of the policy.
      threads: calls under way at once, at least 1.

    Raises:
      JudgeError: when answering, if the function raises or its answer is not a finite number.
    """

    antisymmetric = True

    def __init__(
        self, reward: Callable[[str, str], float], vocabulary: Vocabulary, threads: int = 16
    ):
        self._calls = _Calls(reward, threads, "CallableReward")
        self._vocabulary = vocabulary
        self.name = self._calls.name

    def begin(self, pairs: Pairs) -> Callable[[], Judgement]:
        """Starts the calls, once the tokens are there."""
        texts = pairs.completion_texts(self._vocabulary)
        prompts = pairs.prompt_texts(self._vocabulary)
        places = [(row, place) for row in pairs.asked() for place in (0, 1)]
        questions = [(prompts[row], texts[row][place]) for row, place in places]
        futures = self._calls.begin(questions)

        def finish() -> Judgement:
            reward = np.zeros((len(texts), 2), np.float32)
            for place, future, question in zip(places, futures, questions, strict=True):
                reward[place] = self._calls.answer(future, question, *_FINITE)
            preference = 0.5 * (1.0 + np.tanh(0.5 * (reward[:, 0] - reward[:, 1])))
            return Judgement(preference, reward)

        return finish
