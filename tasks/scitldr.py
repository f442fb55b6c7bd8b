"""SciTLDR-A: abstracts of papers and one-sentence summaries, several a paper.

Importing the module registers scitldr_sft and scitldr_prompts, read from {train,dev,test}.jsonl in
the folder PO_JAX_SCITLDR_DIR, in the schema of the release of "TLDR: Extreme Summarization of
Scientific Documents" (https://arxiv.org/abs/2004.15011): `source`, a list of sentences, and
`target`, a list of summaries. SFT imitates the first; ROUGE takes the best of all.
"""

from po_jax.data import records
from tasks import registration, vocabularies

FOLDER_VARIABLE = "PO_JAX_SCITLDR_DIR"
_FILES = {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"}


def paper(record: records.Record, where: str) -> records.Row:
    """One line of the release.

    Raises:
      ValueError: `source` or `target` is not a list of texts; names `where`.
    """
    for key in ("source", "target"):
        value = record.get(key)
        if not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
            raise ValueError(f"{where}: expected {key!r} to be a list of texts, got {value!r:.60}")
    if not any(sentence.strip() for sentence in record["source"]):
        raise ValueError(f"{where}: 'source' is empty")
    answers = [answer for answer in record["target"] if answer.strip()]
    if not answers:
        raise ValueError(f"{where}: 'target' is empty")
    return {
        "inputs": "summarize: " + " ".join(record["source"]),
        "targets": answers[0],
        "answers": answers,
    }


def _papers(split: str) -> list[records.Row]:
    return records.rows(registration.folder(FOLDER_VARIABLE) / _FILES[split], paper)


def _abstracts(split: str) -> list[records.Row]:
    return [{key: row[key] for key in ("inputs", "answers")} for row in _papers(split)]


_VOCABULARY = vocabularies.from_environment()
registration.add_sft("scitldr_sft", _papers, _VOCABULARY)
registration.add_prompts("scitldr_prompts", _abstracts, _VOCABULARY)
