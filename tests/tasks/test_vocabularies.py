"""The shipped vocabulary keeps T5's conventions, and its trainer gives the same file again."""

import pytest
import sentencepiece

from tasks import train_vocabulary, vocabularies


@pytest.fixture(scope="module")
def shipped():
    return vocabularies.docstrings()


def test_special_ids_are_t5s(shipped):
    assert (shipped.pad_id, shipped.eos_id, shipped.unk_id) == (0, 1, 2)
    assert shipped.tokenizer.bos_id() == -1
    assert shipped.vocab_size == 8192
    assert vocabularies.DOCSTRINGS_MODEL.stat().st_size < 300_000


def test_printable_ascii_survives_and_white_space_becomes_single_spaces(shipped):
    text = "".join(map(chr, range(33, 127)))
    assert shipped.decode(shipped.encode(text)) == text
    assert shipped.decode(shipped.encode(" Adds\tup\n\nthe  rows.\r\n")) == "Adds up the rows."
    assert shipped.unk_id in shipped.encode("caf\u00e9")


def test_tensorflow_and_python_tokenise_alike(shipped):
    text = "Returns the `tf.Tensor`s\nof x_1."
    assert shipped.encode_tf(text).numpy().tolist() == shipped.encode(text)


def test_training_twice_gives_the_same_bytes():
    texts = [f"The number {i} times {i % 7} is {i * (i % 7)}." for i in range(500)]
    first, second = (train_vocabulary.train(texts, size=150) for _ in range(2))
    assert first == second
    pieces = sentencepiece.SentencePieceProcessor(model_proto=first)
    assert pieces.get_piece_size() == 150
    assert pieces.decode(pieces.encode(texts[3])) == texts[3]


def test_choice_by_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("PO_JAX_VOCABULARY", raising=False)
    with pytest.raises(ValueError, match="PO_JAX_VOCABULARY: .* it is not set"):
        vocabularies.from_environment()
    monkeypatch.setenv("PO_JAX_VOCABULARY", "docstrings")
    assert vocabularies.from_environment() == vocabularies.docstrings()
    monkeypatch.setenv("PO_JAX_VOCABULARY", "bytes")
    assert vocabularies.from_environment().encode("A") == [ord("A") + 3]
    monkeypatch.setenv("PO_JAX_VOCABULARY", str(tmp_path / "absent.model"))
    with pytest.raises(ValueError, match="no file at .*absent.model"):
        vocabularies.from_environment()


def test_t5s_vocabulary_has_its_sentinels_on_top(shared_data):
    vocabulary = vocabularies.t5(shared_data / "t5_spiece" / "spiece.model")
    assert vocabulary.vocab_size == 32_100
    assert vocabulary.encode("summarize: ")[0] == 21603  # of T5's released vocabulary
