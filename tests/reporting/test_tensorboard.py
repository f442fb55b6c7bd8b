"""Event files, read back by TensorFlow's own reader, and the lines beside them."""

import json

import pytest

from po_jax.reporting.tensorboard import SummaryWriter, masked_crc32c


def test_the_checksum_is_crc32c():
    crc = 0xE3069283  # the check value of CRC-32C (RFC 3720, B.4) for "123456789"
    expected = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == expected


def test_tensorflow_reads_what_was_written(tmp_path):
    tf = pytest.importorskip("tensorflow")
    writer = SummaryWriter(tmp_path)
    writer.scalars(3, {"loss": 0.5, "kl": 2.25})
    writer.scalars(300, {"win_rate": 0.75}, split="held_out")
    writer.text(300, "samples", "ein Satz — " * 50)
    writer.close()

    (file,) = tmp_path.glob("events.out.tfevents.*")
    version, *events = tf.compat.v1.train.summary_iterator(str(file))
    assert version.file_version == "brain.Event:2"
    found = {
        (event.step, value.tag): value.simple_value or value.tensor.string_val[0].decode()
        for event in events
        for value in event.summary.value
    }
    assert found == {
        (3, "train/loss"): 0.5,
        (3, "train/kl"): 2.25,
        (300, "held_out/win_rate"): 0.75,
        (300, "samples"): "ein Satz — " * 50,
    }
    assert events[-1].summary.value[0].metadata.plugin_data.plugin_name == "text"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 3, "split": "train", "loss": 0.5, "kl": 2.25},
        {"step": 300, "split": "held_out", "win_rate": 0.75},
    ]
