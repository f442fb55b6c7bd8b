"""Event files, read back by TensorFlow's own reader."""

import sys

from etils import epath
import pytest

from po_jax.reporting.tensorboard import TensorBoard
from tests import buckets


def events(folder):
    """All events of a folder's files, in the order in which TensorBoard reads them."""
    tf = pytest.importorskip("tensorflow")
    for path in sorted(folder.glob("events.out.tfevents.*")):
        yield from tf.compat.v1.train.summary_iterator(str(path))


def test_tensorflow_reads_what_was_written_as_soon_as_it_is(tmp_path):
    pytest.importorskip("tensorflow")
    writer = TensorBoard(tmp_path / "run")
    writer.scalars(3, "train", {"loss": 0.5, "kl": 2.25})
    writer.scalars(300, "held_out", {"win_rate": 0.75})
    writer.text(300, "samples", "ein Satz — " * 50)

    version, *records = events(tmp_path / "run")
    assert version.file_version == "brain.Event:2"
    found = {
        (event.step, value.tag): value.simple_value or value.tensor.string_val[0].decode()
        for event in records
        for value in event.summary.value
    }
    assert found == {
        (3, "train/loss"): 0.5,
        (3, "train/kl"): 2.25,
        (300, "held_out/win_rate"): 0.75,
        (300, "samples"): "ein Satz — " * 50,
    }
    assert records[-1].summary.value[0].metadata.plugin_data.plugin_name == "text"


def test_a_resumed_run_says_from_where_older_events_are_void(tmp_path):
    tf = pytest.importorskip("tensorflow")
    killed = TensorBoard(tmp_path, 0)
    killed.scalars(6, "train", {"loss": 0.5})
    resumed = TensorBoard(tmp_path, 4)
    resumed.scalars(5, "train", {"loss": 0.25})
    # TensorBoard drops events of the START's step and of later ones.
    start = tf.compat.v1.SessionLog.START
    found = [(event.step, event.session_log.status == start) for event in events(tmp_path)]
    assert found == [(0, False), (1, True), (6, False), (0, False), (5, True), (5, False)]


class InMemory:
    """TensorFlow's writer of records, for a bucket in memory: its own client has one address."""

    def __init__(self, path):
        self._path, self._records = epath.Path(path), b""

    def write(self, record):
        self._records += record

    def flush(self):
        self._path.write_bytes(self._records)


def test_a_run_in_a_bucket_has_its_events_there_and_nothing_of_its_name_here(tmp_path, monkeypatch):
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setattr(tf.io, "TFRecordWriter", InMemory)
    monkeypatch.chdir(tmp_path)
    with buckets.in_memory():
        TensorBoard("gs://bucket/run", 4).scalars(5, "train", {"loss": 0.5})
        ((path, file),) = buckets.Buckets.store.items()
        assert path.startswith("/bucket/run/events.out.tfevents.")
        assert b"train/loss" in file.getvalue()
    assert not list(tmp_path.iterdir())


def test_without_tensorflow_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ValueError, match="install tensorflow, or leave this writer out"):
        TensorBoard(tmp_path)
