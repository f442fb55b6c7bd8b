"""Slow, lying and dying judges: what is asked again, when, and what each question comes to."""

import threading
import time

import gin
import numpy as np
import pytest

from po_jax.judges import CallableJudge, CallFailed, CallRecord, Calls, JudgeError, Pairs
from po_jax.judges.answer_cache import AnswerCache
from po_jax.judges.caller import Caller
from tests.vocabularies import Numbers

QUICK = {"threads": 1, "pause": 0.01}


def asked(function, questions=("a",), **settings):
    """The answers to some questions, and what became of them."""
    caller = Caller(function, Calls(**{**QUICK, **settings}), 0.0, 1.0)
    return caller.finish(caller.begin([(question,) for question in questions])), caller.record()


class Failing:
    """Raises these, one a call, and then answers."""

    def __init__(self, *errors: Exception):
        self._errors = list(errors)
        self.times = []

    def __call__(self, *texts: str) -> float:
        self.times.append(time.monotonic())
        if self._errors:
            raise self._errors.pop(0)
        return 0.25

    def pauses(self) -> np.ndarray:
        return np.diff(self.times)


def test_a_failed_call_is_repeated_after_pauses_that_grow():
    judge = Failing(TimeoutError(), OSError("reset"), CallFailed("HTTP 503"))
    answers, record = asked(judge, pause=0.02)
    assert answers == [0.25] and record.calls == 4 and record.questions == 1
    assert record.repeated == {"timed out": 1, "OSError": 1, "HTTP 503": 1}
    # Sleeping never ends early: these are the least pauses.
    assert (judge.pauses() >= [0.02, 0.04, 0.08]).all() and not record.unanswered
    judge = Failing(OSError(), OSError(), OSError())
    asked(judge, pause=50.0, longest_pause=0.02)
    assert (judge.pauses() < 50.0).all()


def test_retries_have_a_limit():
    judge = Failing(*[OSError("down")] * 3)
    with pytest.raises(JudgeError, match=r"Failing: raised OSError: down on 'a' \(after 3 c"):
        asked(judge, retries=2)
    assert len(judge.times) == 3
    assert asked(Failing(*[OSError()] * 3), retries=3)[0] == [0.25]


def test_what_another_call_cannot_help_is_not_asked_again():
    for error in (CallFailed("HTTP 401", again=False), CallFailed("HTTP 429", after=1000.0)):
        judge = Failing(error)
        with pytest.raises(JudgeError, match=rf"Failing: {error.reason} on 'a'$"):
            asked(judge)
        assert len(judge.times) == 1
    said = []
    with pytest.raises(JudgeError, match="expected a number, got None on 'a'$"):
        asked(said.append)
    assert said == ["a"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CallFailed("HTTP 401", "the key is wrong", again=False), "the key is wrong"),
        (OSError("the line is dead"), "raised OSError: the line is dead"),
        (TimeoutError(), "raised TimeoutError"),
    ],
)
def test_what_a_function_of_gins_raises_is_told_in_full(error, said):
    failing = gin.external_configurable(Failing(error).__call__, f"judge_{id(error)}")
    with pytest.raises(JudgeError, match=rf": {said} on 'a'$"):
        asked(failing, retries=0)


def test_a_service_that_asks_to_wait_is_left_alone_by_all():
    starts = {}

    def judge(question):
        starts.setdefault(question, []).append(time.monotonic())
        if question == "a" and len(starts["a"]) == 1:
            raise CallFailed("HTTP 429", after=0.3)
        return 0.5

    answers, _ = asked(judge, ["a", "b"], threads=1)
    assert answers == [0.5, 0.5]
    assert min(starts["a"][1], starts["b"][0]) - starts["a"][0] >= 0.3


def test_calls_a_minute():
    for judge, questions, calls in (
        (Failing(), "abcde", 5),
        (Failing(OSError(), OSError()), "a", 3),  # a repeated call is a call
    ):
        began = time.monotonic()
        asked(judge, questions, threads=4, pause=0.001, a_minute=60 / 0.05)
        assert len(judge.times) == calls
        assert max(judge.times) - began >= (calls - 1) * 0.05


def test_a_call_without_an_answer_counts_as_failed():
    hang = threading.Event()
    began = time.monotonic()
    with pytest.raises(JudgeError, match="no answer within 0.1 s on 'a'"):
        asked(lambda question: hang.wait(), timeout=0.1, retries=0)
    assert 0.1 <= time.monotonic() - began < 5
    _, record = asked(lambda question: hang.wait(), timeout=0.1, retries=1, may_fail=1)
    assert record.repeated == record.unanswered == {"timed out": 1} and record.calls == 2
    hang.set()
    assert Calls().timeout == 60


def test_a_slow_a_lying_and_a_dying_judge_leave_a_record():
    hang = threading.Event()
    replies = {"slow": lambda: hang.wait(), "lie": lambda: 7.0, "die": lambda: 1 / 0}

    def judge(question):
        return replies.get(question, lambda: 0.75)()

    questions = ["good", "slow", "lie", "fine", "die"] * 2
    settings = {"threads": 4, "timeout": 0.1, "retries": 1}
    answers, record = asked(judge, questions, **settings, may_fail=6)
    hang.set()
    assert answers == [0.75, None, None, 0.75, None] * 2
    assert record.questions == 10 and record.calls == 4 + 2 * 2 + 2 + 2 * 2
    assert record.unanswered == {"timed out": 2, "out of range": 2, "ZeroDivisionError": 2}
    assert record.repeated == {"timed out": 2, "ZeroDivisionError": 2}
    said = str(record)
    assert "10 questions: 4 (40.0%) answered, 6 (60.0%) without an answer and counted as t" in said
    assert "(ZeroDivisionError: 2, out of range: 2, timed out: 2); 14 calls of " in said
    assert "4 failed calls made again (ZeroDivisionError: 2, timed out: 2)" in said
    with pytest.raises(JudgeError):
        asked(judge, ["lie"] * 7, may_fail=6)


def test_a_record_in_words():
    assert str(CallRecord()) == "0 questions: 0 (0.0%) answered"
    record = CallRecord(questions=4, from_cache=3, calls=1, seconds=1.5)
    assert str(record) == (
        "4 questions: 1 (25.0%) answered, 3 (75.0%) from the cache; 1 call of 1.5 s on average"
    )


def test_nothing_more_is_asked_after_a_failure():
    questions = [str(number) for number in range(50)]
    seen = []

    def judge(question):
        seen.append(question)
        raise OSError("down")

    caller = Caller(judge, Calls(threads=2, retries=3, pause=0.05), 0.0, 1.0)
    first, second = (caller.begin([(question,) for question in questions]) for _ in range(2))
    with pytest.raises(JudgeError):
        caller.finish(first)
    asked_by_then = len(seen)
    time.sleep(0.2)
    assert len(seen) <= asked_by_then + 2 <= 12  # the two that were under way
    assert all(future.cancelled() for future in second)
    assert caller.finish(caller.begin([])) == []  # and it can be asked again


def preferred(prompt, first, second):
    return len(first) / (len(first) + len(second))


def test_a_cache_spares_the_calls_of_another_run(tmp_path):
    path = tmp_path / "new" / "answers.sqlite"
    completion = np.array([[[5, 6], [7, 0]], [[7, 0], [8, 9]]])
    pairs = Pairs(np.array([[2], [3]]), completion, completion > 0)
    seen = []

    def judge(*texts):
        seen.append(texts)
        return preferred(*texts)

    results = []
    for asked_of in (pairs, pairs, pairs.exchanged()):
        callable_judge = CallableJudge(judge, Numbers(), calls=Calls(cache=path, **QUICK))
        results.append(callable_judge.begin(asked_of)().preference)
        record = callable_judge.record()
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], np.float32([3 / 4, 1 / 4]))
    np.testing.assert_array_equal(results[2], np.float32([1 / 4, 3 / 4]))
    assert len(seen) == len(set(seen)) == 4 and record.from_cache == 0
    # Another judge's answers are its own; a failure is none.
    assert AnswerCache(path, "judge").get(("2", "5 6", "7")) == 0.75
    assert AnswerCache(path, "other").get(("2", "5 6", "7")) is None
    failing = Failing(OSError(), OSError())
    failing.name = "judge"
    with pytest.raises(JudgeError):
        asked(failing, cache=path, retries=1)
    assert asked(failing, ["a", "a"], cache=path)[0] == [0.25, 0.25] and len(failing.times) == 3


def test_where_answers_are_kept_nothing_is_under_way_twice(tmp_path):
    """Of a judge that draws its answers, each question is another draw where nothing is kept."""
    for cache, calls in ((tmp_path / "x", 2), (None, 5)):
        judge = Slow()
        answers, record = asked(judge, ["a", "a", "b", "a", "b"], cache=cache, threads=5)
        assert answers == [0.25, 0.25, 0.75, 0.25, 0.75] and judge.calls == calls
        assert (record.questions, record.from_cache, record.calls) == (5, 5 - calls, calls)


class Slow:
    """Knows two questions; all of them are under way before the first is answered."""

    name = "slow"

    def __init__(self):
        self.calls = 0

    def __call__(self, question):
        self.calls += 1
        time.sleep(0.2)
        return {"a": 0.25, "b": 0.75}[question]


def test_what_cannot_be_a_cache(tmp_path):
    with pytest.raises(ValueError, match="expected a function with a name of its own"):
        asked(lambda question: 0.5, cache=tmp_path / "x")
    (tmp_path / "text").write_text("no database, but a text that is long enough to be read" * 20)
    with pytest.raises(ValueError, match=r"expected a judge's cache \(SQLite\), got another file"):
        AnswerCache(tmp_path / "text", "judge")
    with pytest.raises(OSError, match="the judge's cache .*unable to open"):
        AnswerCache(tmp_path, "judge")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"threads": 0}, "expected threads >= 1, got 0"),
        ({"retries": -1}, "expected retries >= 0"),
        ({"may_fail": -1}, "expected may_fail >= 0"),
        ({"timeout": 0.0}, "expected timeout > 0 and finite, got 0.0"),
        ({"timeout": float("nan")}, "expected timeout > 0 and finite, got nan"),
        ({"a_minute": 0.0}, "expected a_minute > 0"),
        ({"pause": -1.0}, "expected pause > 0"),
        ({"longest_pause": float("inf")}, "expected longest_pause > 0 and finite, got inf"),
    ],
)
def test_settings_out_of_range(setting, message):
    with pytest.raises(ValueError, match=f"Calls: {message}"):
        Calls(**setting)
