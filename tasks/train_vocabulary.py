"""Trains the SentencePiece vocabulary that is shipped for the docstrings.

    python -m tasks.train_vocabulary CACHE_FOLDER [OUTPUT] [--more PACKAGE ...]

T5's conventions: 0 pads, 1 ends a sequence, 2 is unknown, and there is no start symbol. The text is
ASCII by construction, so the only normalisation is that every white space becomes one space;
Unicode's tables alone would be larger than all the pieces. The same pairs give the same file.
"""

import argparse
import io
import pathlib
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from tasks import docstring_pairs, vocabularies

SIZE = 8192
WHITE_SPACE = "".join(f"{ord(c):X}\t20\n" for c in "\t\n\r")  # code point -> code point, in hex


def train(texts: list[str], size: int = SIZE) -> bytes:
    """The serialised unigram model with `size` pieces; equal texts give equal bytes."""
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "white_space.tsv"
        rules.write_text(WHITE_SPACE)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            character_coverage=1.0,
            required_chars="".join(map(chr, range(33, 127))),
            normalization_rule_tsv=str(rules),
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,  # several threads add up in an order that varies
            minloglevel=1,
        )
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    proto.normalizer_spec.ClearField("normalization_rule_tsv")  # the temporary path
    proto.normalizer_spec.name = "white_space"
    return proto.SerializeToString(deterministic=True)


def main() -> None:
    """Extracts the pairs, trains on the training split alone, and writes the model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", help="folder of the extracted pairs")
    parser.add_argument("output", nargs="?", default=vocabularies.DOCSTRINGS_MODEL)
    parser.add_argument("--more", nargs="*", default=(), help="as in tasks.docstring_pairs")
    arguments = parser.parse_args()
    pairs = docstring_pairs.load(arguments.cache, more=arguments.more)["train"]
    # The summaries, which are written and not only read, count twice.
    texts = [
        text for pair in pairs for text in (*pair.document.split("\n"), pair.summary, pair.summary)
    ]
    model = train(texts)
    pathlib.Path(arguments.output).write_bytes(model)
    print(f"wrote {SIZE} pieces, {len(model) / 1000:.0f} kB, to {arguments.output}")


if __name__ == "__main__":
    main()
