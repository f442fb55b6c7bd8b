"""How a Python function is called as a judge: as often, as long and as fast as its settings say."""

import dataclasses
import os
from typing import Any


class CallFailed(RuntimeError):
    """What a judge's function may raise to say why it has no answer, and what is to be done.

    Any other exception will do as well: it counts by its name, and the call is repeated.

    Args:
      reason: in a few words, such as "HTTP 503": failures are counted by it.
      detail: for the message; the reason if None.
      again: whether another call can help.
      after: seconds before which no call is welcome, if the service said so.
    """

    def __init__(
        self, reason: str, detail: str | None = None, *, again: bool = True, after: float = 0.0
    ):
        super().__init__(detail or reason)
        self.reason, self.again, self.after = reason, again, after


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calls:
    """How a function is called.

    Attributes:
      threads: calls under way at once, in each process.
      timeout: seconds after which a call counts as failed. A thread cannot be stopped: what it does
        goes on, and its answer is thrown away.
      retries: how often a failed call is repeated before its question counts as unanswered. An
        answer that is none (no number, or out of range) is not asked for again.
      pause: seconds before the first repetition; each further pause is twice as long.
      longest_pause: seconds that a pause may grow to; a service that asks for more has failed for
        good.
      a_minute: calls a minute, evenly spaced, of all processes together; None for no limit.
      cache: file that keeps the answers (SQLite), so that no question is asked twice, be it by
        another run; None for none.
      may_fail: questions that may stay unanswered. Each counts as a tie; one more ends the run.

    Raises:
      ValueError: on a value out of its range.
    """

    threads: int = 16
    timeout: float = 60.0
    retries: int = 5
    pause: float = 1.0
    longest_pause: float = 120.0
    a_minute: float | None = None
    cache: str | os.PathLike | None = None
    may_fail: int = 0

    def __post_init__(self):
        for name, least in (("threads", 1), ("retries", 0), ("may_fail", 0)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"Calls: expected {name} >= {least}, got {value}")
        for name in ("timeout", "pause", "longest_pause", "a_minute"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise ValueError(f"Calls: expected {name} > 0 and finite, got {value}")


@dataclasses.dataclass
class CallRecord:
    """What became of the questions so far; `str` says it in words.

    Attributes:
      questions: how many have been dealt with.
      from_cache: of them, how many a cache could answer.
      unanswered: of them, how many count as ties, by reason.
      repeated: failed calls that were made again, by reason.
      calls: calls that were made.
      seconds: what the calls took, added up.
    """

    questions: int = 0
    from_cache: int = 0
    unanswered: dict[str, int] = dataclasses.field(default_factory=dict)
    repeated: dict[str, int] = dataclasses.field(default_factory=dict)
    calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: "CallRecord") -> "CallRecord":
        """Both together."""
        mine, others = dataclasses.asdict(self), dataclasses.asdict(other)
        return CallRecord(**{name: _sum(mine[name], others[name]) for name in mine})

    def __str__(self) -> str:
        ties = sum(self.unanswered.values())
        answered = self.questions - self.from_cache - ties
        shares = [f"{_share(answered, self.questions)} answered"]
        if self.from_cache:
            shares.append(f"{_share(self.from_cache, self.questions)} from the cache")
        if ties:
            shares.append(
                f"{_share(ties, self.questions)} without an answer and counted as ties "
                f"({_reasons(self.unanswered)})"
            )
        text = f"{_number(self.questions, 'question')}: {', '.join(shares)}"
        if self.calls:
            mean = self.seconds / self.calls
            text += f"; {_number(self.calls, 'call')} of {mean:.2g} s on average"
        if self.repeated:
            text += f"; {_number(sum(self.repeated.values()), 'failed call')} made again "
            text += f"({_reasons(self.repeated)})"
        return text


def _sum(first: Any, second: Any) -> Any:
    if isinstance(first, dict):
        return {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}}
    return first + second


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / max(whole, 1):.1f}%)"


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {counts[reason]}" for reason in sorted(counts))
