"""Comparisons that a tiny policy and a judge make, and what becomes of them in a file."""

import dataclasses
from itertools import combinations
import json
import re

import jax
import pytest

from po_jax.checkpoints.load import load_parameters
from po_jax.data import json_lines, records
from po_jax.evaluation.labelling import Labelling
from po_jax.evaluation.prompts import gather
from po_jax.judges import CallableJudge, CallFailed, Calls, JudgeError
from po_jax.vocabulary import to_text
from tests.evaluation import tiny
from tests.vocabularies import Numbers

WORDS = Numbers()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("policy"), pi=1)["pi"]


class Shorter:
    """Prefers the shorter completion, and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompt, first, second):
        self.asked.append((prompt, first, second))
        return len(second) / max(len(first) + len(second), 1)


def labelling(checkpoint, judge, **options) -> Labelling:
    return Labelling(
        sampler=tiny.sampler(),
        checkpoint=checkpoint,
        prompts=tiny.prompts(),
        judge=CallableJudge(judge, WORDS, antisymmetric=True, calls=Calls(threads=1)),
        vocabulary=WORDS,
        **options,
    )


def test_every_pair_is_judged_once_and_the_better_one_is_chosen(checkpoint, tmp_path):
    judge = Shorter()
    rows = list(labelling(checkpoint, judge, samples=3).records())
    prompts = [f"whole prompt {i}" for i in range(tiny.PROMPTS)]
    assert sorted(prompt for prompt, *_ in judge.asked) == sorted(prompts * 3)
    for prompt in prompts:
        (a, b), (c, d), (e, f) = (pair for asked, *pair in judge.asked if asked == prompt)
        assert (a, b, d) == (c, e, f)  # the three pairs of three completions
        told = [pair for pair in combinations((a, b, d), 2) if all(pair)]
        expected = {frozenset(pair) for pair in told if len(pair[0]) != len(pair[1])}
        own = [row for row in rows if row["prompt"] == prompt]
        assert {frozenset((row["chosen"], row["rejected"])) for row in own} == expected
    for row in rows:
        assert len(row["chosen"]) < len(row["rejected"])
        share = len(row["rejected"]) / (len(row["chosen"]) + len(row["rejected"]))
        assert row["preference"] == pytest.approx(share)
    assert len(rows) >= 5
    path = tmp_path / "train.jsonl"
    assert json_lines.write(path, rows) == len(rows)
    assert [json.loads(line) for line in path.open()] == rows
    read = records.rows(path, records.comparison)
    for name, key in (("completion_1", "chosen"), ("completion_2", "rejected")):
        for suffix in ("", "_ended"):
            assert [r[name + suffix] for r in read] == [row[key + suffix] for row in rows]


def test_records_say_which_completion_ended(checkpoint):
    """Against the completions themselves, drawn once more."""
    made = labelling(checkpoint, Shorter(), samples=3)
    parameters = load_parameters(tiny.MODEL, checkpoint, made.sampler.partitioner)
    tokens = gather(made.prompts).tokens
    drawn = made.sampler.draw_all(parameters, None, tokens, (0.0,) * 3, jax.random.key(0))
    ended = {}
    for i, rows in enumerate(drawn.completion):
        for row in rows:
            text = to_text(WORDS, row)
            ended.setdefault((f"whole prompt {i}", text), set()).add(1 in row)
    found = list(made.records())
    for record in found:
        for side in ("chosen", "rejected"):
            assert record[f"{side}_ended"] in ended[record["prompt"], record[side]]
    said = [record[f"{side}_ended"] for record in found for side in ("chosen", "rejected")]
    assert True in said and False in said


def test_a_labelling_that_starts_again_asks_nothing_twice(checkpoint, tmp_path):
    asked = []

    def judge(*texts):
        if len(asked) == 3:
            asked.append("the service is down")
            raise CallFailed("HTTP 401", again=False)
        asked.append(texts)
        return Shorter()(*texts)

    def rows(cache):
        settings = Calls(threads=1, cache=cache)
        made = labelling(checkpoint, judge)
        own = CallableJudge(judge, WORDS, antisymmetric=True, calls=settings)
        return list(dataclasses.replace(made, judge=own).records())

    with pytest.raises(JudgeError, match="the judge judge: HTTP 401"):
        rows(tmp_path / "answers")
    again = rows(tmp_path / "answers")
    assert len(asked) == 1 + tiny.PROMPTS  # five prompts, not the eight rows of two batches
    assert again == list(labelling(checkpoint, Shorter()).records())


def test_what_teaches_nothing_is_left_out_and_counted(checkpoint, caplog):
    assert list(labelling(checkpoint, lambda *texts: 0.5).records()) == []
    (said,) = (record.getMessage() for record in caplog.records)
    assert re.match(r"of 5 pairs are left out: \d (judged alike|with an empty text)", said)
    assert sum(map(int, re.findall(r" (\d) ", said.partition(":")[2]))) == tiny.PROMPTS


def test_one_text_twice_is_left_out_whatever_the_judge_says(checkpoint, caplog):
    made = labelling(checkpoint, lambda *texts: 0.9)
    made = dataclasses.replace(made, sampler=tiny.sampler(temperature=0.0, min_length=3))
    assert list(made.records()) == []
    assert "of one text twice" in caplog.text


def test_fewer_prompts_and_another_seed(checkpoint):
    first, again, other = (
        list(labelling(checkpoint, Shorter(), samples=4, max_prompts=2, random_seed=seed).records())
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert {row["prompt"] for row in [*first, *other]} == {"whole prompt 0", "whole prompt 4"}


def test_one_completion_makes_no_pair(checkpoint):
    with pytest.raises(ValueError, match="at least 2 samples of each prompt, got 1"):
        labelling(checkpoint, Shorter(), samples=1)
