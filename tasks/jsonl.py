"""A user's own comparisons: TRL's format, one JSON object a line.

    {"prompt": "...", "chosen": "...", "rejected": "..."}
    {"prompt": "...", "chosen": "...", "rejected": "...", "preference": 0.7}
    {"prompt": "...", "summary": "..."}        for SFT; "completion" does as well
    {"prompt": "..."}                          for online algorithms

`preference` is P(chosen > rejected) in [0, 1], 1 where it is not given. Importing the module
registers jsonl_sft, jsonl_prompts and jsonl_comparisons, which read train.jsonl, validation.jsonl
and test.jsonl in the folder PO_JAX_JSONL_DIR; `register` takes another name and folder.
"""

import os
from pathlib import Path

import seqio

from tasks import records, registration, vocabularies

FOLDER_VARIABLE = "PO_JAX_JSONL_DIR"


def register(
    name: str,
    folder: str | os.PathLike | None = None,
    vocabulary: seqio.Vocabulary | None = None,
) -> None:
    """Registers NAME_sft, NAME_prompts and NAME_comparisons, which read FOLDER/SPLIT.jsonl."""
    vocabulary = vocabulary or vocabularies.from_environment()

    def reader(parse) -> registration.ReadRows:
        def read(split: str) -> list[records.Row]:
            where = Path(folder) if folder else records.folder(FOLDER_VARIABLE)
            return records.rows(where / f"{split}.jsonl", parse)

        return read

    registration.add_sft(f"{name}_sft", reader(demonstration), vocabulary)
    registration.add_prompts(f"{name}_prompts", reader(prompt), vocabulary)
    registration.add_comparisons(f"{name}_comparisons", reader(records.comparison), vocabulary)


def demonstration(record: records.Record, where: str) -> records.Row:
    """The row of a prompt and the completion to imitate."""
    key = "completion" if "completion" in record else "summary"
    summary = records.text(record, key, where)
    return {
        "inputs": records.text(record, "prompt", where),
        "targets": summary,
        "answers": [summary],
    }


def prompt(record: records.Record, where: str) -> records.Row:
    """The row of a prompt alone; a completion that is there serves as the answer."""
    answers = [record[key] for key in ("completion", "summary") if record.get(key)]
    return {"inputs": records.text(record, "prompt", where), "answers": answers}


register("jsonl")
