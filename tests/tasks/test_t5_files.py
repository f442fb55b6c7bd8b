"""The vocabulary files of T5s, with their sentinels: ids are those of SentencePiece."""

import json
import shutil

from etils import epath
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
import tensorflow as tf

from po_jax.checkpoints import tokenizer
from tasks import vocabularies

SHIPPED = vocabularies.DOCSTRINGS_MODEL
TEXTS = (
    "Returns the  `tf.Tensor`s\nof x_1.",
    "caf\u00e9 \ufb01 \u00bd \u4f60\u597d",
    "a</s>b <pad> <unk>",
    "<extra_id_0> of <extra_id_7>",
    "x" * 300,
    "",
    "  ",
)


def with_own_sentinels(source, target):
    """A copy of a SentencePiece model that holds a hundred sentinels, as mT5's does."""
    model = sentencepiece_model_pb2.ModelProto.FromString(source.read_bytes())
    for i in reversed(range(100)):
        kind = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
        model.pieces.add(piece=f"\u2581<extra_id_{i}>", score=0.0, type=kind)
    target.write_bytes(model.SerializeToString())
    return target


def saved_by_transformers(spiece, folder):
    """tokenizer.json, as `transformers` 5 saves it."""
    transformers = pytest.importorskip("transformers", minversion="5")
    source = folder / "source"
    source.mkdir(parents=True)
    shutil.copy(spiece, source / "spiece.model")
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100}
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder / "saved")
    return folder / "saved"


def test_a_file_with_its_own_sentinels_gets_no_more(tmp_path):
    plain = vocabularies.t5(SHIPPED)
    own = vocabularies.t5(with_own_sentinels(SHIPPED, tmp_path / "spiece.model"))
    assert own.vocab_size == plain.vocab_size == 8292
    for text in TEXTS:
        assert own.encode(text) == plain.encode(text), text
    assert own.encode("<extra_id_0>") == [8291]


def test_mt5s_kind_of_file_by_the_environment(shared_data, tmp_path, monkeypatch):
    file = with_own_sentinels(shared_data / "t5_spiece" / "spiece.model", tmp_path / "mt5.model")
    monkeypatch.setenv("PO_JAX_VOCABULARY", str(file))
    assert vocabularies.from_environment().vocab_size == 32_100


def test_gemmas_kind_of_file_gets_no_sentinels_and_is_found_by_its_name(tmp_path):
    """With padding, EOS, BOS and unknown in Gemma's order."""
    texts = [f"The number {i} times {i % 7} is {i * (i % 7)}." for i in range(300)]
    with (tmp_path / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=file,
            vocab_size=90,
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
        )
    read = vocabularies.t5(tmp_path)
    assert (read.vocab_size, read.pad_id, read.eos_id, read.unk_id) == (90, 0, 1, 3)
    assert read.decode(read.encode(texts[8])) == texts[8]
    assert tokenizer.check(str(tmp_path / "tokenizer.model"), embedding_rows=90) == 0
    copied = epath.Path(tmp_path / "copied")
    copied.mkdir()
    tokenizer.copy(epath.Path(tmp_path), copied, embedding_rows=90)
    assert vocabularies.t5(copied).vocab_size == 90
    with pytest.raises(ValueError, match="expected a T5's vocabulary, got one with BOS"):
        tokenizer.write(copied, str(tmp_path / "tokenizer.model"), embedding_rows=90)


def test_gemmas_kind_of_tokenizer_json(tmp_path):
    """Byte pairs, with the special tokens that the file beside it names."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True))
    made.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    made.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("\u2581", " "), tokenizers.decoders.Fuse()]
    )
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    texts = [f"The number {i} times {i % 7} is {i * (i % 7)}." for i in range(300)]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=90, special_tokens=special)
    made.train_from_iterator(texts, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    names = {f"{token[1:-1]}_token": token for token in special}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    read = vocabularies.t5(tmp_path)
    assert (read.vocab_size, read.pad_id, read.eos_id, read.unk_id) == (90, 0, 1, 3)
    assert read.decode(read.encode(texts[8])) == texts[8]
    assert 1 not in read.encode("is <eos>.") and 2 not in read.encode("<bos> is")
    assert tokenizer.check(str(tmp_path / "tokenizer.json"), embedding_rows=90) == 0


@pytest.mark.parametrize("extra_ids", [0, 20, 250])
def test_as_many_sentinels_as_the_config_beside_it_says(tmp_path, extra_ids):
    shutil.copy(SHIPPED, tmp_path / "spiece.model")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": extra_ids}))
    for path in (tmp_path, tmp_path / "spiece.model"):
        assert vocabularies.t5(path).vocab_size == 8192 + extra_ids
    rows = 8192 + extra_ids
    assert tokenizer.check(str(tmp_path / "spiece.model"), embedding_rows=rows) == extra_ids
    with pytest.raises(ValueError, match=f"8192 pieces and {extra_ids} sentinels"):
        tokenizer.check(str(tmp_path / "spiece.model"), embedding_rows=rows - 1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return saved_by_transformers(SHIPPED, tmp_path_factory.mktemp("shipped"))


def same_ids(read, model, texts=TEXTS):
    assert (read.vocab_size, read.pad_id, read.eos_id, read.unk_id) == (model.vocab_size, 0, 1, 2)
    for text in texts:
        ids = model.encode(text)
        assert read.encode(text) == ids, text
        assert read.encode_tf(text).numpy().tolist() == ids
        if "extra_id" not in text:  # Beside those, spaces differ.
            assert read.decode(ids) == model.decode(ids), text


def test_tokenizer_json_has_the_ids_of_sentencepiece(saved, monkeypatch):
    monkeypatch.setenv("PO_JAX_VOCABULARY", str(saved / "tokenizer.json"))
    read = vocabularies.from_environment()
    same_ids(read, vocabularies.t5(SHIPPED))
    assert read == vocabularies.t5(saved)  # The folder stands for its file.
    data = tf.data.Dataset.from_tensor_slices(["x of y", "z"]).map(read.encode_tf)
    assert [row.tolist() for row in data.as_numpy_iterator()] == [
        list(read.encode("x of y")),
        list(read.encode("z")),
    ]
    assert read.decode_tf(tf.constant([read.encode("to")])).numpy().tolist() == [b"to"]


def test_t5s_own_tokenizer_json(shared_data, tmp_path):
    spiece = shared_data / "t5_spiece" / "spiece.model"
    read = vocabularies.t5(saved_by_transformers(spiece, tmp_path))
    # T5's own normaliser knows other white space; the shipped vocabulary has another one.
    same_ids(read, vocabularies.t5(spiece), [*TEXTS, "a\u200b b\u00a0c\u3000d"])


def test_tokenizer_json_goes_into_a_converted_directory(saved, tmp_path):
    path = str(saved / "tokenizer.json")
    assert tokenizer.check(path, embedding_rows=8292) == 0
    with pytest.raises(ValueError, match="at most 8291 ids.*got 8292 pieces and 0 sentinels"):
        tokenizer.check(path, embedding_rows=8291)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[]"),
        ("spiece.model", "a text"),
        ("spiece.model", ""),
        ("notes.txt", "another file"),
    ],
)
def test_files_of_another_kind(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}: expected a (SentencePiece|tokenizer.json)") as e:
        vocabularies.t5(tmp_path / name)
    assert len(str(e.value).splitlines()) == 1


def test_padding_elsewhere_is_refused(saved, tmp_path):
    content = json.loads((saved / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab[0], vocab[5] = vocab[5], vocab[0]
    for token in content["added_tokens"]:
        token["id"] = {0: 5}.get(token["id"], token["id"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="expected padding of id 0 and an EOS, got .*5"):
        vocabularies.t5(tmp_path)
