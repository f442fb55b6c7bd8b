"""Calls a function on strings in threads, keeps to the settings, and counts what became of it."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
import copy
import dataclasses
import logging
import threading
import time
from typing import Any

from po_jax import processes
from po_jax.interruption import check_alone
from po_jax.judges.answer_cache import AnswerCache
from po_jax.judges.calls import CallFailed, CallRecord, Calls
from po_jax.judges.judge import JudgeError

logger = logging.getLogger(__name__)

Question = tuple[str, ...]
Answers = list[Future]  # of a number, or None

_LOOK_EVERY = 0.1  # seconds between looks at whether all is answered
_TELL_EVERY = 10.0  # seconds between lines of progress


class Caller:
    """A function on strings as a source of numbers.

    Args:
      function: gets the texts of a question; called from several threads at once.
      settings: how it is called; None for the defaults.
      low, high: bounds of what counts as an answer.

    Raises:
      ValueError: if answers are to be kept of a function that has no name of its own.
    """

    def __init__(
        self, function: Callable[..., Any], settings: Calls | None, low: float, high: float
    ):
        self._function = function
        self._settings = settings = settings or Calls()
        self._low, self._high = low, high
        self.name = _name(function)
        self._cache = None
        if settings.cache is not None:
            if getattr(function, "name", getattr(function, "__name__", "<lambda>")) == "<lambda>":
                raise ValueError(
                    "Calls.cache: expected a function with a name of its own (`def`, or an "
                    f"attribute `name`) to know its answers by, got {function!r:.100}"
                )
            self._cache = AnswerCache(settings.cache, self.name)
        self._gate = _Gate(settings.a_minute and settings.a_minute / processes.count())
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future, Question, threading.Event]] = deque()
        self._under_way: dict[Question, Future] = {}
        self._working = 0
        self._stop = threading.Event()
        self._record = CallRecord()
        self._ties = 0  # of all processes
        self._told = time.monotonic()

    def record(self) -> CallRecord:
        """What became of the questions so far."""
        with self._lock:
            return copy.deepcopy(self._record)

    def whole_record(self) -> CallRecord:
        """`record` of all processes together, all of which ask for it."""
        parts = processes.gathered(lambda: [dataclasses.asdict(self.record())])
        return sum((CallRecord(**part) for part in parts[1:]), CallRecord(**parts[0]))

    def begin(self, questions: Sequence[Question]) -> Answers:
        """Starts to ask; `finish` waits. Where answers are kept, nothing is under way twice."""
        futures: Answers = []
        with self._lock:
            for question in questions:
                future = self._under_way.get(question)
                if future is None:
                    future = Future()
                    self._waiting.append((future, question, self._stop))
                    if self._cache is not None:
                        self._under_way[question] = future
                else:
                    self._record.questions += 1
                    self._record.from_cache += 1
                futures.append(future)
            workers = min(self._settings.threads, self._working + len(questions)) - self._working
            self._working += workers
        for _ in range(workers):  # Daemons: a call that hangs must not keep the process.
            threading.Thread(target=self._work, name="judge", daemon=True).start()
        return futures

    def finish(self, futures: Answers) -> list[float | None]:
        """Waits for the answers; None where a question stayed unanswered and counts as a tie.

        If one fails, or the wait is interrupted, nothing that is not under way is asked any more.

        Raises:
          JudgeError: names the first question that failed.
        """
        waiting = set(futures)
        try:
            while waiting:
                check_alone()
                done, waiting = wait(waiting, _LOOK_EVERY, FIRST_EXCEPTION)
                for future in futures:
                    if future in done:
                        future.result()
                self._tell_now_and_then()
        except BaseException:
            self.stop()
            raise
        return [future.result() for future in futures]

    def gathered(self, futures: Answers, each: int = 1) -> list[list[float | None]]:
        """`finish` of all processes: `each` answers for a row, in the order of the rows.

        Raises:
          JudgeError: as `finish`, or if more questions stayed unanswered, of all, than may.
        """

        def by_row() -> list[list[float | None]]:
            answers = self.finish(futures)
            return [answers[start : start + each] for start in range(0, len(answers), each)]

        rows = processes.gathered(by_row)
        self._ties += sum(row.count(None) for row in rows)
        if self._ties > self._settings.may_fail:  # each process counted its own
            raise JudgeError(
                f"the judge {self.name}: expected at most {self._settings.may_fail} questions "
                f"without an answer, got {self._ties} of all processes together"
            )
        return rows

    def stop(self) -> None:
        """Forgets what has been begun; what is begun from now on is asked as ever."""
        with self._lock:
            self._stop.set()
            self._stop = threading.Event()
            forgotten, self._waiting = self._waiting, deque()
            self._under_way.clear()
        for future, *_ in forgotten:
            future.cancel()

    def _work(self) -> None:
        """A worker's life: it ends when nothing waits."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._working -= 1
                    return
                future, question, stop = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._answer(question, stop))
                except BaseException as error:
                    future.set_exception(error)
            with self._lock:
                if self._under_way.get(question) is future:
                    del self._under_way[question]

    def _answer(self, question: Question, stop: threading.Event) -> float | None:
        if self._cache is not None and (known := self._cache.get(question)) is not None:
            self._count(questions=1, from_cache=1)
            return known
        pause = self._settings.pause
        for repetition in range(self._settings.retries + 1):
            self._gate.wait(stop)
            if stop.is_set():
                break
            try:
                answer = self._call(question)
            except CallFailed as failure:
                too_long = failure.after > self._settings.longest_pause
                if not failure.again or too_long or repetition == self._settings.retries:
                    self._give_up(question, failure, repetition + 1)
                    return None
                self._repeat(failure)
                if not failure.after:
                    stop.wait(min(pause, self._settings.longest_pause))
                pause *= 2.0
            else:
                if self._cache is not None:
                    self._cache.put(question, answer)
                self._count(questions=1)
                return answer
        raise JudgeError(f"the judge {self.name} was stopped")

    def _call(self, question: Question) -> float:
        """One call.

        Raises:
          CallFailed: it took too long, raised, or returned what is no answer.
        """
        began = time.monotonic()
        try:
            answer = _within(self._settings.timeout, self._function, question)
        finally:
            self._count(calls=1, seconds=time.monotonic() - began)
        return _number(answer, self._low, self._high)

    def _repeat(self, failure: CallFailed) -> None:
        self._gate.shut(failure.after)
        with self._lock:
            first = not self._record.repeated
            _count_one(self._record.repeated, failure.reason)
        if first:
            logger.warning("the judge %s: %s; it is asked again", self.name, failure)

    def _give_up(self, question: Question, failure: CallFailed, calls: int) -> None:
        with self._lock:
            self._record.questions += 1
            _count_one(self._record.unanswered, failure.reason)
            accepted = sum(self._record.unanswered.values()) <= self._settings.may_fail
        if not accepted:
            on = ", ".join(repr(text[:200]) for text in question)
            times = f" (after {calls} calls)" if calls > 1 else ""
            raise JudgeError(f"the judge {self.name}: {failure} on {on}{times}") from failure

    def _count(self, **amounts: float | int) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self._record, name, getattr(self._record, name) + amount)

    def _tell_now_and_then(self) -> None:
        if time.monotonic() - self._told > _TELL_EVERY:
            self._told = time.monotonic()
            with self._lock:
                waiting = len(self._waiting)
            logger.info("the judge %s: %s; %d wait", self.name, self.record(), waiting)


class _Gate:
    """Lets calls start so many a minute, and none while a service has asked to wait."""

    def __init__(self, a_minute: float | None):
        self._gap = 60.0 / a_minute if a_minute else 0.0
        self._opens = time.monotonic()
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Returns when a call may start, or the waiting is stopped."""
        while not stop.is_set():
            with self._lock:
                now = time.monotonic()
                if now >= self._opens:
                    self._opens = now + self._gap
                    return
                shut = self._opens - now
            stop.wait(shut)

    def shut(self, seconds: float) -> None:
        """Lets nobody pass for a while."""
        with self._lock:
            self._opens = max(self._opens, time.monotonic() + seconds)


def _name(function: Callable[..., Any]) -> str:
    """The function's own name, or what it says that it is called."""
    return str(getattr(function, "name", getattr(function, "__name__", type(function).__name__)))


def _count_one(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1


def _within(seconds: float, function: Callable[..., Any], question: Question) -> Any:
    """What the function returns, if it does so in time.

    Raises:
      CallFailed: it did not, or raised.
    """
    answer: Future[Any] = Future()

    def call() -> None:
        try:
            answer.set_result(function(*question))
        except BaseException as error:  # even of `sys.exit()`
            answer.set_exception(error)

    threading.Thread(target=call, name="judge call", daemon=True).start()
    if wait([answer], seconds).not_done:
        raise CallFailed("timed out", f"no answer within {seconds:g} s")
    error = answer.exception()
    if error is None:
        return answer.result()
    # Gin adds lines of its own to what a function raises, and hides its arguments.
    first = (str(error).splitlines() or [""])[0][:200]
    if isinstance(error, CallFailed):
        raise CallFailed(error.reason, first, again=error.again, after=error.after) from error
    name = type(error).__name__
    reason = "timed out" if isinstance(error, TimeoutError) else name
    raise CallFailed(reason, f"raised {name}: {first}" if first else f"raised {name}") from error


def _number(answer: Any, low: float, high: float) -> float:
    """A judge's answer as a number within bounds.

    Raises:
      CallFailed: it is none; another call will not help.
    """
    try:
        if isinstance(answer, str | bytes) or getattr(answer, "ndim", None):
            raise TypeError("expected a single number")
        number = float(answer)
    except OverflowError:
        number = float("inf")
    except Exception as error:
        message = f"expected a number, got {answer!r:.60}"
        raise CallFailed("no number", message, again=False) from error
    if not low <= number <= high:
        message = f"expected an answer in [{low}, {high}], got {number}"
        raise CallFailed("out of range", message, again=False)
    return number
