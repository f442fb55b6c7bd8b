"""ROUGE against the answers that people wrote, and the judge that it makes.

The judge knows the author's own answer, so it judges what a learned judge can only guess: it stands
in for a person where a study needs a golden judge.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any

from jaxtyping import Float
import numpy as np

from po_jax.data.corpus import WHERE
from po_jax.judges.judge import Judgement, Pairs, Rows
from po_jax.processes import gathered, own
from po_jax.vocabulary import Vocabulary

MEASURES = ("rouge1", "rouge2", "rougeL")


def rouge(
    completions: Sequence[str],
    answers: Sequence[Sequence[str]],
    measures: Sequence[str] = MEASURES,
) -> dict[str, Float[np.ndarray, " completions"]]:
    """F-measures in [0, 100], with stemming, as T5's own evaluation has them.

    Args:
      completions: one text for each prompt.
      answers: what people wrote for each; of several, the best match counts.
      measures: of "rouge1", "rouge2" and "rougeL".

    Raises:
      ValueError: if the numbers of completions and of answers differ.
    """
    if len(completions) != len(answers):
        raise ValueError(
            f"rouge: expected answers for {len(completions)} completions, got {len(answers)}"
        )
    scores = [
        _score(tuple(measures), tuple(known), text)
        for text, known in zip(completions, answers, strict=True)
    ]
    return {
        measure: np.array([100.0 * score[measure].fmeasure for score in scores])
        for measure in measures
    }


@functools.lru_cache(maxsize=2**16)
def _score(measures: tuple[str, ...], answers: tuple[str, ...], text: str) -> Mapping[str, Any]:
    """Once for each text, however many others it meets."""
    return _scorer(measures).score_multi(answers, text)


@functools.cache
def _scorer(measures: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # an optional dependency

    return RougeScorer(list(measures), use_stemmer=True)


class RougeJudge:
    """1, 0 or 1/2 by which of two completions has the higher ROUGE against the author's answer.

    Args:
      vocabulary: of the policies.
      measure: "rouge1", "rouge2" or "rougeL".

    Raises:
      ValueError: on an unknown measure, and when asked about a prompt without an answer.
    """

    antisymmetric = True

    def __init__(self, vocabulary: Vocabulary, measure: str = "rougeL"):
        if measure not in MEASURES:
            raise ValueError(f"RougeJudge: expected a measure of {MEASURES}, got {measure!r}")
        self._vocabulary = vocabulary
        self._measure = measure
        self.name = f"ROUGE-{measure.removeprefix('rouge')} against the author's own answer"

    def begin(self, pairs: Pairs) -> Callable[[], Judgement]:
        """Scores every completion once, when the answer is wanted."""

        def finish() -> Judgement:
            rows = pairs.asked()
            texts = pairs.completion_texts(self._vocabulary, own(rows))
            preference = np.full(len(pairs.mask), 0.5, np.float32)
            preference[rows] = gathered(lambda: self._preferences(pairs, own(rows), texts))
            return Judgement(preference)

        return finish

    def _preferences(
        self, pairs: Pairs, rows: Rows, texts: Sequence[tuple[str, str]]
    ) -> list[float]:
        answers = [self._answers(pairs, int(row)) for row in rows]
        first, second = (
            rouge([pair[place] for pair in texts], answers, [self._measure])[self._measure]
            for place in (0, 1)
        )
        return (0.5 * (1.0 + np.sign(first - second))).tolist()

    def _answers(self, pairs: Pairs, row: int) -> Sequence[str]:
        answers = pairs.texts.get("answers", ())
        if not len(answers) or not answers[row]:
            (prompt,) = pairs.prompt_texts(self._vocabulary, np.array([row]))
            where = f"{pairs.texts[WHERE][row]}: " if WHERE in pairs.texts else ""
            raise ValueError(
                f"{where}RougeJudge: expected the author's answer to {prompt[:200]!r}, got none"
            )
        return answers[row]
