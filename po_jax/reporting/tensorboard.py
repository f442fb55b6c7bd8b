"""Records of a run that outlive it: `metrics.jsonl` for programs, event files for TensorBoard.

The event format is small enough to write by hand (length-prefixed protocol buffers with CRC-32C
checksums), so a run needs neither TensorFlow nor TensorBoard; any TensorBoard can read it.
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import socket
import struct
import time
from typing import BinaryIO


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli, reflected
        table.append(byte)
    return table


_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """CRC-32C, rotated and offset as TFRecord files store it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes | str) -> bytes:
    """A length-delimited field of a protocol buffer."""
    content = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _scalar(tag: str, value: float) -> bytes:
    return _field(1, _field(1, tag) + _varint(2 << 3 | 5) + struct.pack("<f", value))


def _text(tag: str, text: str) -> bytes:
    tensor = b"\x08\x07" + _field(8, text)  # dtype = DT_STRING, string_val
    metadata = _field(9, _field(1, _field(1, "text")))  # plugin_data.plugin_name
    return _field(1, _field(1, tag) + _field(8, tensor) + metadata)


class SummaryWriter:
    """Appends a run's metrics and texts to files in its directory.

    Args:
      directory: of the run; made if absent.
    """

    def __init__(self, directory: str | os.PathLike):
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._lines = (folder / "metrics.jsonl").open("a")
        self._events: BinaryIO = (folder / name).open("ab")
        self._event(_field(3, "brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float], split: str = "train") -> None:
        """Records numbers of one step."""
        numbers = {name: float(value) for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, "split": split, **numbers}) + "\n")
        self._lines.flush()
        summary = b"".join(_scalar(f"{split}/{name}", value) for name, value in numbers.items())
        self._event(_varint(2 << 3) + _varint(step) + _field(5, summary))

    def text(self, step: int, name: str, text: str) -> None:
        """Records a text, which TensorBoard shows as Markdown."""
        self._event(_varint(2 << 3) + _varint(step) + _field(5, _text(name, text)))

    def close(self) -> None:
        """Closes the files."""
        self._lines.close()
        self._events.close()

    def _event(self, fields: bytes) -> None:
        record = b"\x09" + struct.pack("<d", time.time()) + fields  # wall_time
        length = struct.pack("<Q", len(record))
        self._events.write(length + struct.pack("<I", masked_crc32c(length)))
        self._events.write(record + struct.pack("<I", masked_crc32c(record)))
        self._events.flush()
