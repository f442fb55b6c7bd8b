"""Python callables as judges: answers, which calls are made, threads, and what may go wrong."""

from decimal import Decimal
from fractions import Fraction
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.judges import CallableJudge, CallableReward, Calls, JudgeError, Pairs, ask
from po_jax.partitioning import make_partitioner
from tests.vocabularies import Numbers

PROMPT = np.asarray([[5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 10, 1]])
COMPLETION = np.asarray(
    [[[11, 1, 0], [12, 13, 1]], [[14, 15, 16], [1, 0, 0]], [[17, 1, 0], [18, 1, 0]]]
)
PAIRS = Pairs(PROMPT, COMPLETION, COMPLETION > 0)
TEXTS = [("5 6", "11", "12 13"), ("7", "14 15 16", ""), ("8 9 10", "17", "18")]
WORDS = Numbers()


class Recorder:
    """A function that gives one answer and keeps what it was asked."""

    def __init__(self, answer: float):
        self.answer = answer
        self.asked = []

    def __call__(self, *texts: str) -> float:
        self.asked.append(texts)
        return self.answer


def test_the_judge_reads_text_without_eos_and_padding():
    judge = Recorder(0.25)
    judgement = CallableJudge(judge, WORDS, calls=Calls(threads=1)).begin(PAIRS)()
    assert judge.asked == TEXTS
    np.testing.assert_array_equal(judgement.preference, np.float32([0.25, 0.25, 0.25]))
    assert judgement.reward is None and judgement.by_order is None


def test_tokens_on_the_devices_are_read_as_those_of_the_host():
    rows = [0, 1, 2, 0]
    prompt, completion, mask = make_partitioner(2).distribute(
        (PROMPT[rows], COMPLETION[rows], COMPLETION[rows] > 0)
    )
    judge = Recorder(0.5)
    ask(CallableJudge(judge, WORDS, calls=Calls(threads=1)), Pairs(prompt, completion, mask))()
    swapped = [(prompt, second, first) for prompt, first, second in TEXTS]
    assert judge.asked == [*TEXTS, TEXTS[0], *swapped, swapped[0]]


def test_both_orders_remove_the_favour_to_a_position():
    def longer_or_first(prompt, first, second):
        return np.clip(0.5 + 0.1 * (len(first) - len(second)) + 0.2, 0.0, 1.0)

    preference = ask(CallableJudge(longer_or_first, WORDS), PAIRS)().preference
    # By hand: lengths (2, 5), (8, 0), (2, 2); each order clipped, then averaged.
    expected = [(0.4 + 0.0) / 2, (1.0 + 1.0) / 2, (0.7 + 1 - 0.7) / 2]
    np.testing.assert_allclose(preference, expected, atol=1e-6)


def test_who_always_favours_the_first_says_nothing():
    judge = Recorder(0.8)
    judgement = ask(CallableJudge(judge, WORDS, calls=Calls(threads=1)), PAIRS)()
    np.testing.assert_allclose(judgement.preference, [0.5] * 3, rtol=1e-6)
    np.testing.assert_allclose(judgement.by_order, [[0.8, 0.2]] * 3, rtol=1e-6)
    assert judge.asked == TEXTS + [(prompt, second, first) for prompt, first, second in TEXTS]


def test_who_has_no_order_is_asked_once():
    judge, reward = Recorder(0.8), Recorder(3.0)
    judgement = ask(
        CallableJudge(judge, WORDS, antisymmetric=True, calls=Calls(threads=1)), PAIRS
    )()
    assert judge.asked == TEXTS
    np.testing.assert_array_equal(judgement.preference, np.float32([0.8] * 3))
    assert judgement.by_order is None
    assert ask(CallableReward(reward, WORDS, calls=Calls(threads=1)), PAIRS)().by_order is None
    assert reward.asked == [(prompt, y) for prompt, *pair in TEXTS for y in pair]


def test_rows_that_only_fill_up_cause_no_call():
    pairs = Pairs(PROMPT, COMPLETION, COMPLETION > 0, valid=np.array([True, False, True]))
    judge, reward = Recorder(0.9), Recorder(3.0)
    preference = CallableJudge(judge, WORDS, calls=Calls(threads=1)).begin(pairs)().preference
    assert judge.asked == [TEXTS[0], TEXTS[2]]
    np.testing.assert_array_equal(preference[[0, 2]], np.float32([0.9, 0.9]))
    assert preference.shape == (3,)
    ask(CallableJudge(judge, WORDS), pairs)()
    assert len(judge.asked) == 2 + 4
    ask(CallableReward(reward, WORDS), pairs)()
    assert len(reward.asked) == 4


def test_the_judge_reads_the_whole_prompt_where_the_data_has_it():
    judge, reward = Recorder(0.5), Recorder(0.5)
    whole = ["5 6 and more", "7 and more", "8 9 10 and more"]
    pairs = Pairs(PROMPT, COMPLETION, COMPLETION > 0, texts={"inputs": whole})
    CallableJudge(judge, WORDS, calls=Calls(threads=1)).begin(pairs)()
    CallableReward(reward, WORDS, calls=Calls(threads=1)).begin(pairs)()
    assert [prompt for prompt, *_ in judge.asked] == whole
    assert [prompt for prompt, _ in reward.asked[::2]] == whole


def test_rewards_become_bradley_terry_preferences():
    judgement = CallableReward(lambda prompt, answer: len(answer), WORDS).begin(PAIRS)()
    np.testing.assert_array_equal(judgement.reward, [[2, 5], [8, 0], [2, 2]])
    np.testing.assert_allclose(judgement.preference, 1 / (1 + np.exp([3.0, -8.0, 0.0])), rtol=1e-5)


def test_slow_calls_wait_together_in_both_orders():
    together = threading.Barrier(6, timeout=10)  # breaks unless all six calls are under way

    def judge(prompt, first, second):
        together.wait()
        return 1.0

    began = time.monotonic()
    finish = ask(CallableJudge(judge, WORDS, calls=Calls(threads=6)), PAIRS)
    assert finish().by_order.tolist() == [[1.0, 0.0]] * 3
    assert time.monotonic() - began < 10


def broken(prompt, first, second):
    raise KeyError("quota")


ONCE = Calls(threads=1, retries=0)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (broken, r"the judge broken: raised KeyError: 'quota' on '5 6', '11', '12 13'"),
        (sys.exit, "raised TypeError: exit expected at most 1 argument, got 3 on '5 6'"),
        (lambda *texts: sys.exit(3), r"raised SystemExit: 3 on '5 6', '11', '12 13'"),
        (lambda *texts: 1.5, r"in \[0.0, 1.0\], got 1.5 on '5 6', '11', '12 13'"),
        (lambda *texts: -1, r"in \[0.0, 1.0\], got -1.0 on '5 6'"),
        (lambda *texts: float("nan"), "got nan on '5 6', '11', '12 13'"),
        (lambda *texts: np.float32("nan"), "got nan on '5 6'"),
        (lambda *texts: 2**70, "got 1.18.*e.21 on '5 6'"),
        (lambda *texts: 10**400, "got inf on '5 6'"),
        (lambda *texts: -(10**5000), "got inf on '5 6'"),  # Python will not print its digits
        (lambda *texts: "first", "expected a number, got 'first' on '5 6', '11', '12 13'"),
        (lambda *texts: "0.5", "expected a number, got '0.5' on '5 6'"),
        (lambda *texts: b"1", "expected a number, got b'1' on '5 6'"),
        (lambda *texts: None, "expected a number, got None on '5 6', '11', '12 13'"),
        (lambda *texts: 0.5j, "expected a number, got 0.5j on '5 6'"),
        (lambda *texts: [0.5], r"expected a number, got \[0.5\] on '5 6'"),
        (lambda *texts: np.array([0.5]), r"expected a number, got array\(\[0.5\]\) on '5 6'"),
        (lambda *texts: {"p": 0.5}, "expected a number, got {'p': 0.5} on '5 6'"),
    ],
)
def test_a_wrong_answer_names_the_pair(judge, message):
    with pytest.raises(JudgeError, match=message):
        CallableJudge(judge, WORDS, calls=ONCE).begin(PAIRS)()


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (True, 1.0),
        (0, 0.0),
        (np.float16(0.25), 0.25),
        (np.bool_(True), 1.0),
        (np.array(0.25), 0.25),
        (jnp.float32(0.25), 0.25),
        (Fraction(1, 4), 0.25),
        (Decimal("0.25"), 0.25),
    ],
)
def test_whatever_is_a_number_is_an_answer(answer, number):
    judge = CallableJudge(lambda *texts: answer, WORDS, calls=ONCE)
    np.testing.assert_array_equal(judge.begin(PAIRS)().preference, np.float32([number] * 3))


@pytest.mark.parametrize("answer", [float("inf"), 1e39, float("nan"), 10**40])
def test_a_reward_must_be_finite_in_float32(answer):
    number = f"{float(answer)}".replace("+", r"\+")
    with pytest.raises(JudgeError, match=f"got {number} on '5 6', '11'"):
        CallableReward(lambda *texts: answer, WORDS, calls=ONCE).begin(PAIRS)()


def test_a_reward_that_stays_unknown_makes_a_tie():
    def reward(prompt, answer):
        return {"11": None, "12 13": 4.0, "17": "", "18": None}.get(answer, 1.0)

    judge = CallableReward(reward, WORDS, calls=Calls(retries=0, may_fail=3))
    judgement = judge.begin(PAIRS)()
    np.testing.assert_array_equal(judgement.reward, [[4, 4], [1, 1], [0, 0]])
    np.testing.assert_array_equal(judgement.preference, np.float32([0.5] * 3))
    assert judge.record().unanswered == {"no number": 3}


def test_reports_call_a_judge_by_its_functions_name():
    assert CallableJudge(broken, WORDS).name == CallableReward(broken, WORDS).name == "broken"
    assert CallableJudge(Recorder(0.0), WORDS).name == "Recorder"
