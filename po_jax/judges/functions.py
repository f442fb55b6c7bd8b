"""Any Python function on strings as a judge: an API, a metric, a person.

Calls run in threads, so that slow ones wait together and the devices work meanwhile. Several
processes share the questions out, and each has all the answers.
"""

from collections.abc import Callable, Iterable, Sequence

from jaxtyping import Float
import numpy as np

from po_jax.judges.caller import Caller
from po_jax.judges.calls import CallRecord, Calls
from po_jax.judges.judge import Judgement, Pairs, Rows
from po_jax.processes import own
from po_jax.vocabulary import Vocabulary

_FINITE = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))


class CallableJudge:
    """P(first > second | prompt) from `judge(prompt, first, second)`.

    Args:
      judge: three strings to a preference in [0, 1]; called from several threads at once. It gets
        the whole prompt, and completions as the policy wrote them.
      vocabulary: of the policy.
      antisymmetric: the function is known to say 1 - p where the completions change places; else
        both orders are asked and averaged.
      calls: how it is called: threads, time limit, retries, rate, cache; None for the defaults.

    Raises:
      JudgeError: when answering, if the function raises, takes too long or answers outside [0, 1],
        once too often.
    """

    def __init__(
        self,
        judge: Callable[[str, str, str], float],
        vocabulary: Vocabulary,
        antisymmetric: bool = False,
        calls: Calls | None = None,
    ):
        self._caller = Caller(judge, calls, 0.0, 1.0)
        self._vocabulary = vocabulary
        self.name = self._caller.name
        self.antisymmetric = antisymmetric

    def begin(self, pairs: Pairs) -> Callable[[], Judgement]:
        """Starts the calls, once the tokens are there."""
        rows = pairs.asked()
        questions = _questions(pairs, self._vocabulary, own(rows))
        begun = self._caller.begin([(prompt, *texts) for prompt, texts in questions])

        def finish() -> Judgement:
            preference = np.full(len(pairs.mask), 0.5, np.float32)
            answers = self._caller.gathered(begun)
            for row, (answer,) in zip(rows, answers, strict=True):
                if answer is not None:
                    preference[row] = answer
            return Judgement(preference)

        return finish

    def record(self) -> CallRecord:
        """What became of the questions so far, of all processes; all of them ask together."""
        return self._caller.whole_record()


class CallableReward:
    """Bradley-Terry preferences from `reward(prompt, completion)`: P = sigmoid(r1 - r2).

    Args:
      reward: two strings to a finite number; called from several threads at once. Where one of a
        pair stays unanswered, the other's reward stands for it.
      vocabulary: of the policy.
      calls: how it is called: threads, time limit, retries, rate, cache; None for the defaults.

    Raises:
      JudgeError: when answering, if the function raises, takes too long or answers what is not a
        finite number, once too often.
    """

    antisymmetric = True

    def __init__(
        self,
        reward: Callable[[str, str], float],
        vocabulary: Vocabulary,
        calls: Calls | None = None,
    ):
        self._caller = Caller(reward, calls, *_FINITE)
        self._vocabulary = vocabulary
        self.name = self._caller.name

    def begin(self, pairs: Pairs) -> Callable[[], Judgement]:
        """Starts the calls, once the tokens are there."""
        rows = pairs.asked()
        questions = _questions(pairs, self._vocabulary, own(rows))
        begun = self._caller.begin([(prompt, y) for prompt, texts in questions for y in texts])

        def finish() -> Judgement:
            reward = np.zeros((len(pairs.mask), 2), np.float32)
            reward[rows] = _without_gaps(self._caller.gathered(begun, each=2))
            preference = 0.5 * (1.0 + np.tanh(0.5 * (reward[:, 0] - reward[:, 1])))
            return Judgement(preference, reward)

        return finish

    def record(self) -> CallRecord:
        """What became of the questions so far, of all processes; all of them ask together."""
        return self._caller.whole_record()


def _questions(
    pairs: Pairs, vocabulary: Vocabulary, rows: Rows
) -> Iterable[tuple[str, tuple[str, str]]]:
    """Prompts and both completions of some rows."""
    texts = pairs.completion_texts(vocabulary, rows)
    return zip(pairs.prompt_texts(vocabulary, rows), texts, strict=True)


def _without_gaps(answers: Sequence[Sequence[float | None]]) -> Float[np.ndarray, "rows 2"]:
    """Rewards of pairs; where one is unknown it is the other's, so that the pair ties."""
    pairs = np.asarray(answers, np.float32).reshape(-1, 2)  # None becomes nan
    pairs = np.where(np.isnan(pairs), pairs[:, ::-1], pairs)
    return np.where(np.isnan(pairs), np.float32(0.0), pairs)
