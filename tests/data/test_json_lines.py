"""The reader and the writer: what survives, and what is told of what does not."""

import gzip
import json
import os
import threading

import pytest

from po_jax.data import json_lines

# Line separators of Unicode, which str.splitlines takes for ends of lines.
SEPARATORS = "one\u2028two\u2029three\u0085four\x0bfive\x0csix\x1cseven"


def read(path):
    return [record for _, record in json_lines.read(path)]


def test_what_is_written_is_read(tmp_path):
    records = [
        {"text": SEPARATORS, "list": ["a", 1, None, True]},
        {"text": 'quotes " and \\ and \n and \r\n', "number": 0.1},
        {"text": "caf\u00e9 \U0001f600", "nested": {"a": {"b": []}}},
    ]
    path = tmp_path / "new" / "folder" / "file.jsonl"
    assert json_lines.write(path, iter(records)) == 3
    assert read(path) == records
    assert path.read_bytes().count(b"\n") == 3
    assert [path.name for path in path.parent.iterdir()] == ["file.jsonl"]


def test_line_separators_of_others_do_not_end_a_line(tmp_path):
    path = tmp_path / "file.jsonl"
    line = json.dumps({"text": SEPARATORS}, ensure_ascii=False)
    path.write_bytes(f"{line}\n{line}".encode())
    assert read(path) == [{"text": SEPARATORS}] * 2


def test_byte_order_mark_line_ends_and_empty_lines(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": "\xef\xbb\xbf"}\n{"a": 3}')
    assert list(json_lines.read(path)) == [
        (f"{path}, line 1", {"a": 1}),
        (f"{path}, line 4", {"a": "\ufeff"}),  # only the file's first is a mark
        (f"{path}, line 5", {"a": 3}),
    ]
    assert list(json_lines.lines(path)) == [
        (f"{path}, line 1", '{"a": 1}'),
        (f"{path}, line 4", '{"a": "\ufeff"}'),
        (f"{path}, line 5", '{"a": 3}'),
    ]


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": ', "expected JSON, got"),
        (b'{"a": 1} {"a": 2}', "expected JSON, got"),
        (b"{'a': 1}", "expected JSON, got"),
        (b'["a"]', "expected a JSON object, got"),
        (b"7", "expected a JSON object, got '7'"),
        (b"null", "expected a JSON object, got 'null'"),
        (DEEP, "expected JSON, got"),
        (b'{"a": ' + DEEP + b"}", "expected JSON, got"),
        (b'{"a": "\xff"}', "expected UTF-8, got"),
        (b"\xef\xbb\xbf{}", "expected JSON, got"),
        (b'{"a": 1, "b": 2, "a": 1}', "expected JSON, got .*the key 'a' stands twice"),
        (b'{"b": [{"a": 1, "a": 2}]}', ".*the key 'a' stands twice in an object"),
        (b'{"a": "\\ud800"}', "expected JSON, got .*surrogates not allowed"),
        (b'{"a": "\\ude00\\ud83d"}', "expected JSON, got .*surrogates not allowed"),
        (b'{"\\uDFFF": 1}', "expected JSON, got .*surrogates not allowed"),
        (b'{"a": "\0"}', "expected text in UTF-8, got NUL"),
        ('{"a": 1}'.encode("utf-16-le"), "expected text in UTF-8, got NUL"),
        (b'{"a": "x\ty"}', "expected JSON, got .*control character"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "expected JSON, got .*4300 digits"),
    ],
    ids=[
        *("cut", "two", "quotes", "list", "number", "null", "deep", "deep in", "bytes", "mark"),
        *("twice", "twice within", "surrogate", "pair exchanged", "surrogate as key"),
        *("nul", "utf-16", "tab", "huge"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"a": 0}\n\n' + line + b"\n")
    records = json_lines.read(path)
    assert next(records) == (f"{path}, line 1", {"a": 0})
    with pytest.raises(ValueError, match=f"file.jsonl, line 3: {message}") as raised:
        next(records)
    assert len(str(raised.value)) < 500


def test_what_is_not_a_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="got no file at .*absent.jsonl"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(ValueError, match=f"got a folder at {tmp_path}"):
        read(tmp_path)


def test_what_is_packed_or_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "file.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n'))
    with pytest.raises(ValueError, match=r"file.jsonl.gz, line 1: expected UTF-8, .*gzip; unpack"):
        read(path)
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        path.write_bytes('{"a": "caf\u00e9"}\n'.encode(encoding))
        with pytest.raises(ValueError, match="file.jsonl.gz, line 1: expected .*UTF-8, got"):
            read(path)


def test_what_unicode_can_hold_is_read(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_bytes(rb'{"a": "\ud83d\ude00 \u0000 \\ud800"}')  # a pair, NUL, and a backslash
    assert read(path) == [{"a": "\U0001f600 \0 \\ud800"}]


def test_a_pipe_is_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b'{"a": 1}\n',))
    writer.start()
    assert read(path) == [{"a": 1}]
    writer.join()


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), "\ud800"])
def test_what_cannot_be_written_is_named(tmp_path, value):
    path = tmp_path / "file.jsonl"
    with pytest.raises(ValueError, match="file.jsonl, line 2: expected what JSON can hold, got"):
        json_lines.write(path, [{"a": 1}, {"a": [value]}])
    assert not list(tmp_path.iterdir())


def test_the_encoding_is_utf_8_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "latin-1")
    path = tmp_path / "file.jsonl"
    json_lines.write(path, [{"a": "\u4f60"}])
    assert path.read_bytes() == '{"a": "\u4f60"}\n'.encode()


def interrupted():
    yield {"a": "new"}
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("records", "error"),
    [
        (interrupted, KeyboardInterrupt),
        (lambda: [{"a": "new"}, {"a": float("nan")}], ValueError),
        (lambda: [{"a": "new"}, {"a": object()}], TypeError),
    ],
    ids=["interrupted", "not a number", "not JSON"],
)
@pytest.mark.parametrize("before", [None, '{"a": "old"}\n'])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, records, error, before):
    path = tmp_path / "file.jsonl"
    if before:
        path.write_text(before)
    with pytest.raises(error):
        json_lines.write(path, records())
    assert [file.name for file in tmp_path.iterdir()] == (["file.jsonl"] if before else [])
    if before:
        assert path.read_text() == before


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "file.jsonl"
    json_lines.write(path, [{"a": "old"}])

    def records():
        for i in range(3):
            assert read(path) == [{"a": "old"}]
            yield {"a": i}

    assert json_lines.write(path, records()) == 3
    assert read(path) == [{"a": 0}, {"a": 1}, {"a": 2}]
