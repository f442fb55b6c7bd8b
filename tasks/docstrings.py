"""The embedded default: the first line of a docstring, from the signature and the rest.

Nothing is downloaded. Importing the module registers docstrings_sft and docstrings_prompts, whose
pairs are extracted once from the installed packages into the folder PO_JAX_DOCSTRINGS_DIR (default:
~/.cache/po_jax/docstrings), docstrings_swapped, comparisons of theirs that are easy to tell, and
docstrings_comparisons, which reads comparisons.SPLIT.jsonl there, in the format of `tasks.jsonl`;
the quickstart writes it. PO_JAX_DOCSTRINGS_MORE names packages, with spaces between them, that
widen the training split.
"""

import functools
import os
import random

from etils import epath

from po_jax import files
from po_jax.data import records
from tasks import docstring_pairs, registration, vocabularies

FOLDER_VARIABLE = "PO_JAX_DOCSTRINGS_DIR"
MORE_VARIABLE = "PO_JAX_DOCSTRINGS_MORE"
DEFAULT_FOLDER = "~/.cache/po_jax/docstrings"
NEAR = 40  # pairs of the same module or of those beside it


def folder() -> epath.Path:
    """Where the comparisons are kept, and but for a bucket the extracted pairs."""
    return files.absolute(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


@functools.lru_cache
def _load(where: epath.Path, more: str) -> dict[str, list[docstring_pairs.Pair]]:
    return docstring_pairs.load(where, more=more.split())


def _pairs(split: str) -> list[docstring_pairs.Pair]:
    where = folder()
    if files.in_bucket(where):
        where = files.absolute(DEFAULT_FOLDER)
    return _load(where, os.environ.get(MORE_VARIABLE, ""))[split]


def _demonstrations(split: str) -> list[records.Row]:
    return [
        {"inputs": pair.document, "targets": pair.summary, "answers": [pair.summary]}
        for pair in _pairs(split)
    ]


def _prompts(split: str) -> list[records.Row]:
    return [{"inputs": pair.document, "answers": [pair.summary]} for pair in _pairs(split)]


def _swapped(split: str) -> list[records.Row]:
    """Comparisons of the author's first line with that of another function nearby.

    The start's own lines differ by little, and ROUGE's verdict on them is mostly chance: a judge
    learns from these first what a line about its function is.
    """
    pairs = _pairs(split)
    rows = []
    for index, pair in enumerate(pairs):
        draw = random.Random(f"{pair.module} {pair.name}")
        other = pairs[(index + draw.randint(1, NEAR)) % len(pairs)].summary
        if other != pair.summary:
            lines = {"completion_1": pair.summary, "completion_2": other}
            rows.append({"inputs": pair.document, **lines, "preference": 1.0})
    return rows


def _comparisons(split: str) -> list[records.Row]:
    return records.rows(folder() / f"comparisons.{split}.jsonl", records.comparison)


_VOCABULARY = vocabularies.docstrings()
registration.add_sft("docstrings_sft", _demonstrations, _VOCABULARY)
registration.add_prompts("docstrings_prompts", _prompts, _VOCABULARY)
registration.add_comparisons("docstrings_comparisons", _comparisons, _VOCABULARY)
registration.add_comparisons("docstrings_swapped", _swapped, _VOCABULARY)
