"""What is lost or doubled where texts become token ids: counted, and said before it is learned."""

from collections.abc import Iterator

import numpy as np

from po_jax.data.corpus import Corpus, Layout, Ragged
from po_jax.data.layouts import COMPLETIONS
from po_jax.vocabulary import Vocabulary

#: How models write that a text ends; written out in a text, most vocabularies read them as text.
ENDS = ("</s>", "<eos>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>")
_AT_ONCE = 4096  # rows


def remarks(corpus: Corpus, layout: Layout, vocabulary: Vocabulary) -> Iterator[str]:
    """Sentences, each with its numbers, on what a reader of the data should know."""
    size = len(corpus)
    for name, length in layout.features.items():
        tokens = corpus.tokens[name]
        if cut := np.flatnonzero(tokens.lengths > length).tolist():
            if name != "inputs":
                consequence = "they are cut and lose their EOS"
            else:
                consequence = "they are cut" + (" at the beginning" if layout.keep_end else "")
                if alike := _alike_when_cut(tokens, cut, length, layout.keep_end):
                    consequence += f", and {alike} of them read like another one then"
            yield f"{len(cut)} of {size} {name} are longer than {length} tokens; {consequence}"
        if unknown := np.count_nonzero(tokens.count(getattr(vocabulary, "unk_id", None))):
            yield f"{unknown} of {size} {name} hold characters unknown to the vocabulary"
        texts = corpus.texts.get(name, ())
        written = [text.rstrip().endswith(ENDS) for text in texts if isinstance(text, str)]
        twice = tokens.count(vocabulary.eos_id) > 1
        if ends := sum(written) or np.count_nonzero(twice):
            yield f"{ends} of {size} {name} have an end written out, such as {ENDS[0]}; take it off"
    if set(COMPLETIONS) <= set(layout.features):
        yield from _alike_pairs(corpus, layout.features[COMPLETIONS[0]])


def _alike_when_cut(tokens: Ragged, rows: list[int], length: int, keep_end: bool) -> int:
    """How many of these sequences, all too long, differ from another one in what is cut alone."""
    whole: dict[int, set[int]] = {}  # hashes, to be small
    for row in rows:
        ids = tokens.row(row)
        kept = ids[-length:] if keep_end else ids[:length]
        whole.setdefault(hash(kept.tobytes()), set()).add(hash(ids.tobytes()))
    return sum(len(different) for different in whole.values() if len(different) > 1)


def _alike_pairs(corpus: Corpus, length: int) -> Iterator[str]:
    """Pairs whose completions are one and the same, and how they came to be."""
    first, second = (corpus.tokens[name] for name in COMPLETIONS)
    alike: list[int] = []
    for rows in np.array_split(np.arange(len(corpus)), len(corpus) // _AT_ONCE + 1):
        (x, _), (y, _) = (tokens.padded(rows, length) for tokens in (first, second))
        alike += rows[(x == y).all(axis=1)].tolist()
    if not alike:
        return
    texts = [corpus.texts[name] for name in COMPLETIONS if name in corpus.texts]
    as_texts = [row for row in alike if len(texts) == 2 and texts[0][row] == texts[1][row]]
    as_tokens = [row for row in alike if np.array_equal(first.row(row), second.row(row))]
    yield (
        f"{len(alike)} of {len(corpus)} pairs are one completion twice and teach nothing: "
        f"{len(as_texts)} as texts, {len(set(as_tokens) - set(as_texts))} in the vocabulary's "
        f"tokens, {len(set(alike) - set(as_tokens) - set(as_texts))} when cut to {length} tokens"
    )
