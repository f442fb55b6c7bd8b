"""The writer of event files, which TensorBoard shows.

An event file is a TFRecord file of `Event` messages, and TensorFlow has both. Its summary writers
do less: those of version 2 cannot say where a run was resumed, those of version 1 need a graph.
"""

from collections.abc import Mapping
import os
import socket
import time
from typing import Any

from etils import epath

from po_jax.reporting.writers import Folder


class TensorBoard:
    """Appends to an event file of its own, one for each time that the run was started.

    A number's tag is "<split>/<name>", a text's its name. TensorBoard shows texts as Markdown.

    Args:
      directory: of the run; made if absent.
      step: that the run goes on from; TensorBoard forgets the numbers that older files hold of
        later steps. None lets it show all.

    Raises:
      ValueError: if TensorFlow is not installed.
    """

    def __init__(self, directory: Folder, step: int | None = None):
        try:
            import tensorflow as tf
        except ImportError as error:
            raise ValueError(
                "TensorBoard: expected TensorFlow, which writes event files, got none: "
                "install tensorflow, or leave this writer out"
            ) from error
        folder = epath.Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._messages = tf.compat.v1
        self._file = tf.io.TFRecordWriter(str(folder / name))
        self._write(file_version="brain.Event:2")
        if step is not None:
            log = self._messages.SessionLog
            self._write(step=step + 1, session_log=log(status=log.START))

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes one event with all numbers."""
        value = self._messages.Summary.Value
        summary = [
            value(tag=f"{split}/{name}", simple_value=number) for name, number in values.items()
        ]
        self._write(step=step, summary=self._messages.Summary(value=summary))

    def text(self, step: int, name: str, text: str) -> None:
        """Writes one event for TensorBoard's plugin for texts."""
        metadata = self._messages.SummaryMetadata(plugin_data={"plugin_name": "text"})
        tensor = self._messages.make_tensor_proto(text)
        value = self._messages.Summary.Value(tag=name, tensor=tensor, metadata=metadata)
        self._write(step=step, summary=self._messages.Summary(value=[value]))

    def _write(self, **fields: Any) -> None:
        event = self._messages.Event(wall_time=time.time(), **fields)
        self._file.write(event.SerializeToString())
        self._file.flush()
