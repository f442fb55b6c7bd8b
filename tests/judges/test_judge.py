"""How any judge is asked: the orders, their mean, and what a question holds."""

import numpy as np

from po_jax.judges import Judgement, Pairs, ask
from tests.vocabularies import Numbers

COMPLETION = np.asarray([[[4, 1], [6, 1]], [[9, 1], [3, 1]]])
PAIRS = Pairs(
    np.asarray([[5, 1], [7, 1]]),
    COMPLETION,
    COMPLETION > 0,
    texts={"inputs": ["five", "seven"], "answers": [["a"], ["b"]]},
    valid=np.array([True, False]),
)


class FavoursTheFirst:
    """Reward: the completion's first token, and 2 more for what is shown first."""

    name = "favours the first"
    antisymmetric = False

    def __init__(self):
        self.events = []

    def begin(self, pairs):
        self.events.append(pairs)
        reward = np.float32(pairs.completion[:, :, 0]) + np.float32([[2, 0]])

        def finish():
            self.events.append("answer")
            return Judgement(np.float32(reward[:, 0] > reward[:, 1]), reward)

        return finish


def test_preferences_and_rewards_are_means_of_both_orders():
    judgement = ask(FavoursTheFirst(), PAIRS)()
    # First row: 6 - 6, so the first never wins; exchanged, 8 - 4, so 6 wins. Second: 9 always wins.
    np.testing.assert_array_equal(judgement.by_order, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(judgement.preference, [0, 1])
    np.testing.assert_array_equal(judgement.reward, [[5, 7], [10, 4]])


def test_both_questions_are_put_before_an_answer_is_due():
    judge = FavoursTheFirst()
    finish = ask(judge, PAIRS)
    assert len(judge.events) == 2 and "answer" not in judge.events
    finish()
    assert judge.events[2:] == ["answer", "answer"]


def test_only_the_completions_change_places():
    judge = FavoursTheFirst()
    ask(judge, PAIRS)
    given, exchanged = judge.events
    assert given is PAIRS
    np.testing.assert_array_equal(exchanged.completion, COMPLETION[:, [1, 0]])
    np.testing.assert_array_equal(exchanged.mask, COMPLETION[:, [1, 0]] > 0)
    for name in ("prompt", "texts", "valid"):
        assert getattr(exchanged, name) is getattr(PAIRS, name)


def test_what_is_asked_and_read():
    assert PAIRS.asked().tolist() == [0]
    whole = Pairs(PAIRS.prompt, COMPLETION, COMPLETION > 0)
    assert whole.asked().tolist() == [0, 1]
    assert PAIRS.prompt_texts(Numbers()) == ["five", "seven"]
    assert whole.prompt_texts(Numbers()) == ["5", "7"]
    cut = Pairs(PAIRS.prompt, COMPLETION, np.asarray([[[True, False]] * 2, [[False] * 2] * 2]))
    assert cut.completion_texts(Numbers()) == [("4", "6"), ("", "")]
