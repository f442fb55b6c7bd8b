"""A chat model behind an OpenAI-style endpoint as a judge: a worked example, with `urllib` alone.

CallableJudge(Endpoint(url="https://.../v1/chat/completions", model="..."), vocabulary)
"""

import dataclasses
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
import hashlib
import http.client
import json
import os
import re
import string
import urllib.error
import urllib.request

from po_jax.judges.calls import CallFailed

QUESTION = """\
Which of two answers to a prompt is better?

Prompt: {prompt}

Answer A: {first}

Answer B: {second}

Say A or B, and nothing else."""

_PASSING = {408, 409, 425, 429}  # and all of 500 and above: another call may help


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Asks which of two completions is better: 1 for A, the first, 0 for B.

    What may go wrong, and whether the call is made again:

      again: no connection, no answer in time, HTTP 408, 409, 425, 429 and 5xx (not before what
        Retry-After says), an answer that is cut short or not in the format;
      not again: any other HTTP status, and an answer that is neither A nor B.

    Attributes:
      url: of the chat completions.
      model: its name at the service.
      question: with {prompt}, {first} and {second}.
      key: name of the environment variable that holds the key; without it, none is sent.
      timeout: seconds that the connection may be silent.

    Raises:
      ValueError: the question does not hold each of the three, or the URL is none.
    """

    url: str
    model: str
    question: str = QUESTION
    key: str = "JUDGE_API_KEY"
    timeout: float = 60.0

    def __post_init__(self):
        fields = {field for _, field, *_ in string.Formatter().parse(self.question) if field}
        if fields != {"prompt", "first", "second"}:
            raise ValueError(
                "Endpoint.question: expected the fields {prompt}, {first} and {second}, got "
                f"{sorted(fields)}"
            )
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"Endpoint.url: expected http:// or https://, got {self.url!r}")

    @property
    def name(self) -> str:
        """The model, and what tells its question from another: answers are kept by this name."""
        asked = hashlib.sha256(self.question.encode()).hexdigest()[:6]
        return f"{self.model} (question {asked})"

    def __call__(self, prompt: str, first: str, second: str) -> float:
        """P(first is better), 1 or 0.

        Raises:
          CallFailed: there is no answer.
        """
        question = self.question.format(prompt=prompt, first=first, second=second)
        said = self._ask(question)
        found = re.fullmatch(r"\W*([AB])\W*", said)
        if found is None:
            raise CallFailed("neither A nor B", f"expected A or B, got {said[:60]!r}", again=False)
        return 1.0 if found[1] == "A" else 0.0

    def _ask(self, question: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.load(answer)["choices"][0]["message"]["content"].strip()
        except urllib.error.HTTPError as error:
            raise CallFailed(
                f"HTTP {error.code}",
                again=error.code in _PASSING or error.code >= 500,
                after=_seconds(error.headers.get("Retry-After")),
            ) from error
        except TimeoutError:
            raise
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise error.reason from error
            raise CallFailed("no connection", f"no connection ({error.reason})") from error
        except (http.client.HTTPException, OSError) as error:
            raise CallFailed("connection lost", f"connection lost ({error!r})") from error
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise CallFailed(
                "malformed", f"expected a chat completion, got what raises {error!r:.100}"
            ) from error


def _seconds(retry_after: str | None) -> float:
    """What Retry-After says: seconds, or a date; 0 for nothing that can be read."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
