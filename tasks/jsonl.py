"""A user's own data: TRL's formats, one JSON object a line.

    {"prompt": "...", "chosen": "...", "rejected": "..."}
    {"prompt": "...", "chosen": "...", "rejected": "...", "preference": 0.7}
    {"prompt": "...", "summary": "..."}        for SFT; "completion" does as well
    {"prompt": "..."}                          for online algorithms

Wherever a text stands, a conversation may: [{"role": "user", "content": "..."}, ...]. Of several
messages a text is made with a line "role: content" for each; `po_jax.data.conversations` has the
rules, and says what a record without "prompt" means.

`preference` is P(chosen > rejected) in [0, 1], 1 where it is not given. `chosen_ended` and
`rejected_ended` (`completion_ended`, for SFT) say whether a completion came to its end; one that
was cut off, false, gets no EOS. They are true where they are not given. As prompts, comparisons
have the preferred completion for an answer.

Importing the module registers jsonl_sft, jsonl_prompts and jsonl_comparisons, which read
train.jsonl, validation.jsonl and test.jsonl in the folder PO_JAX_JSONL_DIR; `register` takes
another name and folder. Where PO_JAX_COMPARISONS_DIR is set, jsonl_comparisons reads
comparisons.SPLIT.jsonl in that folder: so a study finds what it has labelled.
"""

import os

from etils import epath
import seqio

from po_jax import files
from po_jax.data import records
from tasks import registration, vocabularies

FOLDER_VARIABLE = "PO_JAX_JSONL_DIR"
COMPARISONS_VARIABLE = "PO_JAX_COMPARISONS_DIR"


def register(
    name: str,
    folder: str | os.PathLike | None = None,
    vocabulary: seqio.Vocabulary | None = None,
) -> None:
    """Registers NAME_sft, NAME_prompts and NAME_comparisons, which read FOLDER/SPLIT.jsonl."""
    vocabulary = vocabulary or vocabularies.from_environment()

    def reader(parse, file=_prompts_file) -> registration.ReadRows:
        def read(split: str) -> list[records.Row]:
            where = files.absolute(folder) / f"{split}.jsonl" if folder else file(split)
            return records.rows(where, parse)

        return read

    comparisons = reader(records.comparison, _comparisons_file)
    registration.add_sft(f"{name}_sft", reader(records.demonstration), vocabulary)
    registration.add_prompts(f"{name}_prompts", reader(records.prompt), vocabulary)
    registration.add_comparisons(f"{name}_comparisons", comparisons, vocabulary)


def _prompts_file(split: str) -> epath.Path:
    return registration.folder(FOLDER_VARIABLE) / f"{split}.jsonl"


def _comparisons_file(split: str) -> epath.Path:
    if os.environ.get(COMPARISONS_VARIABLE):
        return registration.folder(COMPARISONS_VARIABLE) / f"comparisons.{split}.jsonl"
    return _prompts_file(split)


register("jsonl")
