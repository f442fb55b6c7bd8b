"""The golden judge of a task's prompts, which knows the author's own answer to each."""

from po_jax.data.corpus import BatchStream
from po_jax.judges.functions import CallableAnnotator
from po_jax.judges.rouge import RougeJudge
from po_jax.vocabulary import Vocabulary, to_text


def golden_annotator(
    prompts: BatchStream, vocabulary: Vocabulary, measure: str = "rougeL"
) -> CallableAnnotator:
    """Prefers the completion with the higher ROUGE against the first reference of its prompt.

    Args:
      prompts: of a task with references; every prompt that will be asked about.
      vocabulary: of the policies.
      measure: "rouge1", "rouge2" or "rougeL".

    Raises:
      ValueError: if a prompt has no reference.
    """
    known = {}
    for batch in prompts.one_pass():
        for tokens, references in zip(
            batch.arrays["prompt"], batch.texts.get("references", ()), strict=True
        ):
            text = to_text(vocabulary, tokens)
            if not references:
                raise ValueError(f"golden_annotator: expected a reference for {text[:200]!r}")
            known[text] = references[0]
    return CallableAnnotator(RougeJudge(known, measure), vocabulary, threads=1)
