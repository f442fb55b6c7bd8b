"""TFDS data sets with their source replaced: nothing is downloaded."""

import pytest
import seqio

from po_jax.data import seqio_source
from po_jax.data.layouts import Prompts
from tasks import cnn_dailymail, news, xsum


@pytest.mark.parametrize(
    ("module", "fields"),
    [(cnn_dailymail, ("article", "highlights")), (xsum, ("document", "summary"))],
)
def test_fields_become_features(module, fields):
    name = module.__name__.split(".")[-1]
    document, summary = fields
    raw = {"train": {document: "A cat was lost.", summary: "Cat lost.", "id": "7"}}
    row = seqio.test_utils.test_preprocessing_single(f"{name}_sft", raw)
    assert row["inputs_pretokenized"] == b"summarize: A cat was lost."
    assert row["targets_pretokenized"] == b"Cat lost."
    assert row["answers"].tolist() == [b"Cat lost."]
    assert row["inputs"][-1] == row["targets"][-1] == 1
    prompt = seqio.test_utils.test_preprocessing_single(f"{name}_prompts", raw)
    assert prompt["inputs"].tolist() == row["inputs"].tolist()
    assert set(seqio.get_mixture_or_task(f"{name}_prompts").output_features) == {"inputs"}


@pytest.mark.parametrize("name", ["cnn_dailymail", "xsum"])
def test_data_that_was_not_prepared_is_not_downloaded(name, tmp_path):
    seqio.set_tfds_data_dir_override(str(tmp_path))
    try:
        for kind in ("sft", "prompts"):
            with pytest.raises(ValueError, match=f"`tfds build {name}:.* makes it") as raised:
                seqio_source.read(f"{name}_{kind}", "train", Prompts({"inputs": 8}))
            assert str(tmp_path) in str(raised.value)
    finally:
        seqio.set_tfds_data_dir_override(None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tfds_name", ["not_there:1.0.0", "xsum:9.9.9"])
def test_what_tfds_does_not_know_is_told_in_a_line(tfds_name, tmp_path):
    name = f"news_{tfds_name[:4]}"
    news.register(name, tfds_name, document="a", summary="b")
    seqio.set_tfds_data_dir_override(str(tmp_path))
    try:
        with pytest.raises(ValueError, match=f"expected {tfds_name} on disk, got: ") as raised:
            seqio_source.read(f"{name}_sft", "train", Prompts({"inputs": 8}))
    finally:
        seqio.set_tfds_data_dir_override(None)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
