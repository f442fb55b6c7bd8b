"""Three tiny policies from disk, the third a copy of the first, on five prompts."""

import threading

import numpy as np
import pytest

from po_jax.evaluation.page import html_page
from po_jax.evaluation.side_by_side import SideBySide
from po_jax.judges import CallableJudge, CallFailed, Calls
from tests.evaluation import tiny
from tests.vocabularies import Numbers

WORDS = Numbers()
ANSWERS = [["5 6"], ["7"], ["8 9"], ["2"], ["3 4"]]


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("policies"), mu=0, pi=1, copy=0)


def side_by_side(policies, judge=None, **options) -> SideBySide:
    return SideBySide(
        **{
            "sampler": tiny.sampler(),
            "policies": policies,
            "reference": "mu",
            "prompts": tiny.prompts(answers=ANSWERS),
            "judge": judge or CallableJudge(lambda *texts: 0.75, WORDS),
            "vocabulary": WORDS,
            "examples": 5,
            **options,
        }
    )


def longer(prompt, first, second):
    return 0.5 + 0.5 * np.sign(len(first) - len(second))


def test_every_figure_is_of_the_completions_that_are_shown(policies):
    asked = []

    def judge(*texts):
        asked.append(texts)
        return longer(*texts)

    report = side_by_side(policies, CallableJudge(judge, WORDS, antisymmetric=True)).report()
    assert report["policies"] == ["mu", "pi", "copy"] and report["prompts"] == tiny.PROMPTS
    assert report["judge"]["name"] == "judge" and report["judge"]["position_bias"] is None
    assert report["judge"]["calls"]["questions"] == len(asked) == 3 * tiny.PROMPTS
    assert report["config"]["policies"] == policies
    examples = report["examples"]
    assert [example["prompt"] for example in examples] == [f"whole prompt {i}" for i in range(5)]
    assert [example["answers"] for example in examples] == ANSWERS
    # Three pairs on five prompts: rows that fill up the second batch are not asked about.
    pairs = [("mu", "pi"), ("mu", "copy"), ("pi", "copy")]
    assert sorted(asked) == sorted(
        (example["prompt"], example["completions"][a], example["completions"][b])
        for example in examples
        for a, b in pairs
    )
    for name in ("pi", "copy"):
        wins = [
            longer("", example["completions"][name], example["completions"]["mu"])
            for example in examples
        ]
        assert [example["preference"][name] for example in examples] == wins
        assert report["win_rate"][name]["mu"]["mean"] == pytest.approx(np.mean(wins))
    # The copy is the reference itself, and still draws completions of its own.
    assert report["kl"]["mu"]["mean"] == report["kl"]["copy"]["mean"] == 0.0
    assert report["kl"]["pi"]["mean"] != 0.0
    assert any(x["completions"]["mu"] != x["completions"]["copy"] for x in examples)
    assert set(report["rouge"]) == {"mu", "pi", "copy"} and "metrics" not in report


def test_a_judge_that_favours_the_first_is_reported_and_evened_out(policies):
    report = side_by_side(policies).report()
    assert report["judge"]["position_bias"] == pytest.approx(0.25)
    assert report["win_rate"]["pi"]["mu"]["mean"] == pytest.approx(0.5)


def test_a_slow_a_lying_and_a_dying_judge_are_told_apart_in_the_report(policies):
    hang = threading.Event()

    def judge(prompt, first, second):
        number = int(prompt.split()[-1])
        if number == 1:
            hang.wait()
        if number == 3:
            raise CallFailed("HTTP 503")
        return [1.0, None, float("nan"), None, 1.0][number]

    calls = Calls(timeout=0.2, retries=1, pause=0.01, may_fail=18)
    report = side_by_side(policies, CallableJudge(judge, WORDS, calls=calls)).report()
    hang.set()
    found = report["judge"]["calls"]
    # Three pairs of policies, five prompts, both orders.
    assert found["questions"] == 30
    assert found["unanswered"] == {"timed out": 6, "out of range": 6, "HTTP 503": 6}
    assert found["repeated"] == {"timed out": 6, "HTTP 503": 6}
    page = html_page(report, {}, "judges")
    assert "30 questions: 12 (40.0%) answered, 18 (60.0%) without an answer and counted" in page
    # The place decides where it answers at all, and the orders are averaged: every prompt ties.
    assert report["win_rate"]["pi"]["mu"]["ties"] == 1.0


def test_the_kl_is_the_policys_own_where_sampling_is_changed(policies):
    greedy = tiny.sampler(temperature=0.0)
    report = side_by_side(policies, sampler=greedy, max_prompts=4).report()
    assert report["prompts"] == 4 and report["config"]["strategy"]["temperature"] == 0.0
    drawn = [example["completions"] for example in report["examples"]]
    assert all(completions["mu"] == completions["copy"] for completions in drawn)
    unchanged = side_by_side(policies, max_prompts=4, random_seed=3).report()
    changed = side_by_side(policies, sampler=greedy, max_prompts=4, random_seed=3).report()
    # Of further samples, drawn with another key; greedy ones would not change with the seed.
    assert changed["kl"]["pi"] != report["kl"]["pi"] != unchanged["kl"]["pi"]


def test_a_tasks_own_metrics_are_of_each_policys_completions(policies):
    def metrics(texts, completions):
        assert texts["answers"] == ANSWERS
        return {"words": float(np.mean([len(text.split()) for text in completions]))}

    report = side_by_side(policies, metrics=metrics).report()
    for name in policies:
        drawn = [example["completions"][name] for example in report["examples"]]
        assert report["metrics"][name] == {"words": np.mean([len(x.split()) for x in drawn])}


def test_without_answers_there_is_no_rouge(policies):
    answers = [*ANSWERS[:4], []]
    report = side_by_side(policies, prompts=tiny.prompts(answers=answers)).report()
    assert "rouge" not in report
    assert report["win_rate"]["pi"]["mu"]["n"] == tiny.PROMPTS


def test_mistakes_are_found_before_anything_is_drawn(policies):
    with pytest.raises(ValueError, match=r"the reference 'sft' among them, got \['mu', 'pi', "):
        side_by_side(policies, reference="sft")
    with pytest.raises(ValueError, match=r"two or more policies, .* got \['mu'\]"):
        side_by_side({"mu": policies["mu"]})
    with pytest.raises(ValueError, match="got no such path"):
        side_by_side({**policies, "other": "nowhere"})


def test_one_prompt_is_refused_before_anything_is_drawn(policies, monkeypatch):
    monkeypatch.setattr(SideBySide, "_load", lambda self, name: pytest.fail("loaded"))
    with pytest.raises(ValueError, match="expected at least 2 prompts, got 1"):
        side_by_side(policies, max_prompts=1).report()
