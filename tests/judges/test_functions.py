"""Python callables as annotators: answers, both orders, threads, and what they may do wrong."""

import threading
import time

import numpy as np
import pytest

from po_jax.judges.functions import CallableJudge, CallableReward
from po_jax.judges.judge import JudgeError

PROMPT = np.asarray([[5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 10, 1]])
COMPLETION = np.asarray(
    [[[11, 1, 0], [12, 13, 1]], [[14, 15, 16], [1, 0, 0]], [[17, 1, 0], [18, 1, 0]]]
)
MASK = COMPLETION > 0


class Numbers:
    """A vocabulary whose words are the ids themselves."""

    def decode(self, ids):
        return " ".join(map(str, ids))

    def encode(self, text):
        return [int(word) for word in text.split()]


WORDS = Numbers()


def test_the_judge_reads_text_without_eos_and_padding():
    asked = []

    def judge(prompt, first, second):
        asked.append((prompt, first, second))
        return 0.25

    judgement = CallableJudge(judge, WORDS, threads=1).begin(PROMPT, COMPLETION, MASK)()
    assert asked == [("5 6", "11", "12 13"), ("7", "14 15 16", ""), ("8 9 10", "17", "18")]
    np.testing.assert_array_equal(judgement.preference, np.float32([0.25, 0.25, 0.25]))
    assert judgement.reward is None


def test_both_orders_remove_the_favour_to_a_position():
    def longer_or_first(prompt, first, second):
        return np.clip(0.5 + 0.1 * (len(first) - len(second)) + 0.2, 0.0, 1.0)

    annotator = CallableJudge(longer_or_first, WORDS, both_orders=True)
    preference = annotator.begin(PROMPT, COMPLETION, MASK)().preference
    # By hand: lengths (2, 5), (8, 0), (2, 2); each order clipped, then averaged.
    expected = [(0.4 + 0.0) / 2, (1.0 + 1.0) / 2, (0.7 + 1 - 0.7) / 2]
    np.testing.assert_allclose(preference, expected, atol=1e-6)


def test_rewards_become_bradley_terry_preferences():
    judgement = CallableReward(lambda prompt, answer: len(answer), WORDS).begin(
        PROMPT, COMPLETION, MASK
    )()
    np.testing.assert_array_equal(judgement.reward, [[2, 5], [8, 0], [2, 2]])
    np.testing.assert_allclose(judgement.preference, 1 / (1 + np.exp([3.0, -8.0, 0.0])), rtol=1e-5)


def test_slow_calls_wait_together():
    together = threading.Barrier(3, timeout=10)  # breaks unless all three calls are under way

    def judge(prompt, first, second):
        together.wait()
        return 1.0

    began = time.monotonic()
    finish = CallableJudge(judge, WORDS, threads=3).begin(PROMPT, COMPLETION, MASK)
    assert finish().preference.tolist() == [1.0, 1.0, 1.0]
    assert time.monotonic() - began < 10


def broken(prompt, first, second):
    raise KeyError("quota")


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (broken, r"raised KeyError\('quota'\) on prompt '5 6', first '11', second '12 13'"),
        (lambda *texts: 1.5, r"in \[0.0, 1.0\], got 1.5 on prompt '5 6'"),
        (lambda *texts: float("nan"), "got nan on prompt '5 6'"),
        (lambda *texts: "first", "expected a number, got 'first' on prompt '5 6'"),
    ],
)
def test_a_wrong_answer_names_the_pair(judge, message):
    with pytest.raises(JudgeError, match=message):
        CallableJudge(judge, WORDS).begin(PROMPT, COMPLETION, MASK)()


def test_a_reward_must_be_finite():
    with pytest.raises(JudgeError, match="got inf on prompt '5 6'"):
        CallableReward(lambda *texts: float("inf"), WORDS).begin(PROMPT, COMPLETION, MASK)()
