"""T5's vocabulary: the same ids in seqio, which trains, and in `transformers`, which serves."""

import json
import sys

from etils import epath
import pytest

from po_jax.checkpoints import tokenizer

POSTS = 100


@pytest.fixture
def spiece(shared_data):
    return str(shared_data / "t5_spiece" / "spiece.model")


def pretrained(directory):
    transformers = pytest.importorskip("transformers")
    (directory / "config.json").write_text(json.dumps({"model_type": "t5"}))
    return transformers.AutoTokenizer.from_pretrained(str(directory))


def texts(shared_data):
    """Posts and summaries; then the same with every seventh word of theirs made a sentinel."""
    with (shared_data / "tldr" / "sft.validation.jsonl").open() as lines:
        records = [json.loads(line) for line, _ in zip(lines, range(POSTS), strict=False)]
    plain = [record[field] for record in records for field in ("post", "summary")]
    for text in plain:
        yield text
        words = text.split()
        for i in range(3, min(len(words), 700), 7):
            words[i] = f"<extra_id_{i // 7}>"
        yield " ".join(words)


def test_ids_of_real_posts(shared_data, spiece, tmp_path):
    seqio = pytest.importorskip("seqio")
    directory = epath.Path(tmp_path)
    tokenizer.write(directory, spiece, embedding_rows=32128)
    theirs = pretrained(directory)
    ours = seqio.SentencePieceVocabulary(spiece, extra_ids=100)
    assert len(theirs) == ours.vocab_size == 32100
    sentinels = 0
    for text in texts(shared_data):
        ids = ours.encode(text)
        sentinels += sum(i >= 32000 for i in ids)
        assert theirs(text)["input_ids"] == [*ids, 1]
    assert sentinels > 1000


def test_bytes(tmp_path):
    directory = epath.Path(tmp_path)
    tokenizer.write(directory, tokenizer.BYTES, embedding_rows=384)
    theirs = pretrained(directory)
    text = "naïve 猫 <extra_id_0>"
    expected = [byte + 3 for byte in "naïve 猫 ".encode()]
    assert theirs(text)["input_ids"][: len(expected)] == expected


def test_a_missing_library_is_named(spiece, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match="spiece.model: .* pip install sentencepiece"):
        tokenizer.check(spiece, embedding_rows=32128)


def test_a_vocabulary_that_does_not_fit(spiece, tmp_path):
    assert tokenizer.check(spiece, embedding_rows=32100) == 100
    message = "spiece.model: expected at most 32099 ids, .* got 32000 pieces and 100 sentinels"
    with pytest.raises(ValueError, match=message):
        tokenizer.write(epath.Path(tmp_path), spiece, embedding_rows=32099)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="bytes: expected at most 256 ids"):
        tokenizer.check(tokenizer.BYTES, embedding_rows=256)


def test_what_is_no_vocabulary(spiece, tmp_path):
    damaged = tmp_path / "spiece.model"
    with pytest.raises(ValueError, match="expected a SentencePiece model, got no such file"):
        tokenizer.check(str(damaged), embedding_rows=9)
    content = epath.Path(spiece).read_bytes()
    for wrong in (content[: len(content) // 2], b"\xff" * 99, b"not a vocabulary"):
        damaged.write_bytes(wrong)
        with pytest.raises(ValueError, match="expected a SentencePiece model, got other bytes"):
            tokenizer.check(str(damaged), embedding_rows=40_000)
