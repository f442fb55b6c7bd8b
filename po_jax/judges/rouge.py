"""The golden judge: ROUGE against the line that a human wrote. Stands in for a person in tests.

It knows the author's own answer, so it judges what a learned annotator can only guess.
"""

from collections.abc import Mapping

from po_jax.judges.judge import AnnotatorError


class RougeJudge:
    """1, 0 or 1/2 by which of two answers has the higher ROUGE F-measure against the author's.

    A callable on strings, for `CallableAnnotator` and for reports.

    Args:
      references: the author's answer to each prompt.
      measure: "rouge1", "rouge2" or "rougeL".
    """

    def __init__(self, references: Mapping[str, str], measure: str = "rougeL"):
        from rouge_score.rouge_scorer import RougeScorer  # an optional dependency

        self._references = references
        self._measure = measure
        self._scorer = RougeScorer([measure])

    def __call__(self, prompt: str, first: str, second: str) -> float:
        """P(first > second).

        Raises:
          AnnotatorError: if the prompt has no author's answer.
        """
        difference = self.score(prompt, first) - self.score(prompt, second)
        return 0.5 if difference == 0.0 else float(difference > 0.0)

    def score(self, prompt: str, answer: str) -> float:
        """F-measure of the answer against the author's, in [0, 1].

        Raises:
          AnnotatorError: if the prompt has no author's answer.
        """
        if prompt not in self._references:
            raise AnnotatorError(f"RougeJudge: no author's answer is known to {prompt[:200]!r}")
        reference = self._references[prompt]
        return self._scorer.score(reference, answer)[self._measure].fmeasure
