"""TFDS data sets with their source replaced: nothing is downloaded."""

import pytest
import seqio

from tasks import cnn_dailymail, xsum


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
def test_data_that_was_not_prepared_is_not_downloaded(name, tmp_path, monkeypatch):
    seqio.set_tfds_data_dir_override(str(tmp_path))
    try:
        with pytest.raises(Exception, match=f"(?i)dataset.*{name}|{name}.*not"):
            seqio.get_mixture_or_task(f"{name}_sft").get_dataset(None, "train", shuffle=False)
    finally:
        seqio.set_tfds_data_dir_override(None)
    assert not list(tmp_path.iterdir())
