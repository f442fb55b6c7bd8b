"""An OpenAI-style endpoint on this machine: what each kind of answer comes to."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import threading
import time

import pytest

from po_jax.judges import CallFailed, Calls, Endpoint, JudgeError
from po_jax.judges.caller import Caller


def completion(text: str) -> bytes:
    """As OpenAI's reference has it, as far as it matters."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"object": "chat.completion", "choices": [{"message": message}]}).encode()


class Server(ThreadingHTTPServer):
    """Gives these answers in turn, the last for ever: (status, body, headers)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.received, self.times = [], [], []
        self.url = f"http://127.0.0.1:{self.server_port}/v1/chat/completions"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        server.times.append(time.monotonic())
        server.received.append((self.path, dict(self.headers), json.loads(body)))
        answers = server.answers
        status, body, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        if status is None:
            time.sleep(0.4)  # longer than the client waits
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("JUDGE_API_KEY", "secret")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def ask(server, *answers, **settings):
    """One question, and what became of it."""
    server.answers[:] = answers
    endpoint = Endpoint(url=server.url, model="m", timeout=0.1)
    settings = {"threads": 1, "pause": 0.01, "retries": 2, **settings}
    caller = Caller(endpoint, Calls(**settings), 0.0, 1.0)
    (answer,) = caller.finish(caller.begin([("the {prompt}", "one", "two")]))
    return answer, caller.record()


A = (200, completion("A"), {})


def test_the_question_and_its_answer(server):
    assert ask(server, A)[0] == 1.0
    path, headers, body = server.received[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body["model"] == "m" and body["temperature"] == 0
    (message,) = body["messages"]
    assert message["role"] == "user"
    for part in ("Prompt: the {prompt}", "Answer A: one", "Answer B: two"):
        assert part in message["content"]
    for said, number in ((" B.\n", 0.0), ("**A**", 1.0), ("(B)", 0.0)):
        assert ask(server, (200, completion(said), {}))[0] == number


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((None, b"", {}), "timed out"),
        ((429, b"slow down", {}), "HTTP 429"),
        ((500, b"", {}), "HTTP 500"),
        ((503, b"", {}), "HTTP 503"),
        ((200, completion("A")[:-9], {}), "malformed"),
        ((200, completion("A"), {"Content-Length": "999"}), "connection lost"),
        ((200, b'{"choices": []}', {}), "malformed"),
        ((200, b'{"choices": [{"message": {"content": null}}]}', {}), "malformed"),
        ((200, b"<html>", {}), "malformed"),
        ((200, b"\xff\xfe", {}), "malformed"),
    ],
)
def test_what_may_pass_is_asked_again(server, answer, reason):
    number, record = ask(server, answer, A)
    assert number == 1.0 and record.repeated == {reason: 1} and record.calls == 2
    number, record = ask(server, answer, may_fail=1, retries=1)
    assert number is None and record.unanswered == {reason: 1} and record.calls == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, b"", {}), "HTTP 401"),
        ((404, b"", {}), "HTTP 404"),
        ((200, completion("Both are good."), {}), "expected A or B, got 'Both are good.'"),
        ((200, completion(""), {}), "expected A or B, got ''"),
        ((200, completion("A or B"), {}), "expected A or B, got 'A or B'"),
        ((200, completion("a"), {}), "expected A or B, got 'a'"),
    ],
)
def test_what_will_not_pass_is_not_asked_again(server, answer, message):
    with pytest.raises(JudgeError, match=rf"the judge m \(question \w+\): {message} on 'the"):
        ask(server, answer)
    assert len(server.received) == 1


def test_retry_after_is_kept_to(server):
    assert ask(server, (429, b"", {"Retry-After": "1"}), A)[0] == 1.0
    assert server.times[1] - server.times[0] >= 1.0
    for after in ("100000", format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)):
        with pytest.raises(JudgeError, match="HTTP 429 on 'the"):
            ask(server, (429, b"", {"Retry-After": after}), A)
    for after in ("soon", "Fri, 31 Dec 1999 23:59:59 GMT"):
        assert ask(server, (503, b"", {"Retry-After": after}), A)[0] == 1.0


def test_nobody_there(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as gone:
        url = gone.url
    with pytest.raises(CallFailed, match="no connection"):
        Endpoint(url=url, model="m")("prompt", "one", "two")


def test_another_question_is_another_judge():
    own = "{prompt} {first} {second}?"
    plain, other = Endpoint(url="http://x", model="m"), Endpoint(url="http://y", model="m")
    assert plain.name == other.name != Endpoint(url="http://x", model="m", question=own).name
    with pytest.raises(ValueError, match=r"expected the fields .* got \['first', 'prompt'\]"):
        Endpoint(url="http://x", model="m", question="{prompt} {first}")
    with pytest.raises(ValueError, match="expected http:// or https://, got 'x'"):
        Endpoint(url="x", model="m")
