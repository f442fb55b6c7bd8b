"""An object store that needs no network: what gs:// means while a test runs.

Files are in memory, through fsspec. TensorStore, which writes checkpoints' arrays, has a client of
its own: it is led to a small server that has the same files by the JSON interface of Cloud Storage.
"""

from collections.abc import Iterator
import contextlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import os
import re
import threading
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from etils import epath
from etils.epath import backend
import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from orbax.checkpoint._src.path import gcs_utils
import pytest


class Buckets(MemoryFileSystem):
    """All buckets, in memory."""

    protocol = ("gs",)
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))


def _file_system(_, path) -> fsspec.AbstractFileSystem:
    return Buckets() if os.fspath(path).startswith("gs://") else fsspec.filesystem("file")


class _Server(BaseHTTPRequestHandler):
    """Objects by the JSON interface: read, list, write, delete."""

    protocol_version = "HTTP/1.1"

    def _where(self):
        url = urlsplit(self.path)
        bucket, name = re.fullmatch(r"(?:/upload)?/storage/v1/b/([^/]+)/o/?(.*)", url.path).groups()
        return bucket, unquote(name), {key: value[0] for key, value in parse_qs(url.query).items()}

    def _answer(self, status, content=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):  # noqa: N802  the server's name
        bucket, name, query = self._where()
        files = Buckets()
        if not name:
            root = f"/{bucket}/"
            names = sorted(
                key.removeprefix(root) for key in dict(files.store) if key.startswith(root)
            )
            kept = [
                {"name": key, "generation": "1"}
                for key in names
                if key.startswith(query.get("prefix", ""))
                and query.get("startOffset", "") <= key
                and ("endOffset" not in query or key < query["endOffset"])
            ]
            self._answer(200, json.dumps({"items": kept}).encode())
            return
        path = f"/{bucket}/{name}"
        if path not in files.store:
            self._answer(404)
            return
        content = files.cat_file(path)
        if given := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(given[1]), int(given[2] or len(content) - 1)
            part = content[first : last + 1]
            span = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
            self._answer(206, part, Content_Range=span, x_goog_generation=1)
        else:
            self._answer(200, content, x_goog_generation=1)

    def do_POST(self):  # noqa: N802
        bucket, _, query = self._where()
        content = self.rfile.read(int(self.headers["Content-Length"]))
        Buckets().pipe_file(f"/{bucket}/{query['name']}", content)
        self._answer(200, json.dumps({"name": query["name"], "generation": "1"}).encode())

    def do_DELETE(self):  # noqa: N802
        bucket, name, _ = self._where()
        with contextlib.suppress(FileNotFoundError):
            Buckets().rm_file(f"/{bucket}/{name}")
        self._answer(204)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def in_memory() -> Iterator[None]:
    """gs:// is in memory inside, and empty at first."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epath.gpath, "_is_tf_installed", lambda: False)
        patch.setattr(type(backend.fsspec_backend), "fs", _file_system)
        # Orbax asks Cloud Storage itself, by another client, which kind of bucket it is.
        patch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda _: False)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
        Buckets.store.clear()
        Buckets.pseudo_dirs[:] = [""]
        yield
    server.shutdown()
