"""Completions of any prompts: by whom, of what, and with which log-probabilities."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.checkpoints.load import load_parameters
from po_jax.evaluation.completions import Completer
from tests.evaluation import tiny
from tests.vocabularies import Numbers


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("policies"), mu=0, pi=1)


def completer(policies, **options) -> Completer:
    options = {"sampler": tiny.sampler(), "checkpoint": policies["pi"], **options}
    return Completer(vocabulary=Numbers(), prompt_length=3, **options)


def test_completions_carry_their_text_and_their_logprob_under_the_policy(policies):
    """Under the policy whatever they were drawn from; here, half from the reference."""
    prompts = ["5 6", "7", "8 9", "2 3", "4"]
    found = completer(policies, samples=2, reference_checkpoint=policies["mu"], beta=0.5).of_texts(
        prompts
    )
    tokens = np.array([[5, 6, 1], [7, 1, 0], [8, 9, 1], [2, 3, 1], [4, 1, 0]])
    sampler = tiny.sampler()
    pi, mu = (load_parameters(tiny.MODEL, policies[x], sampler.partitioner) for x in ("pi", "mu"))
    drawn = sampler.draw_all(pi, mu, tokens, (0.5, 0.5), jax.random.key(0))
    score = jax.jit(tiny.MODEL.score)
    logprob = score(pi, *map(jnp.asarray, (tokens, drawn.completion, drawn.mask))).sum(axis=2)
    np.testing.assert_allclose([[x.logprob for x in y] for y in found], logprob, rtol=1e-4)
    assert [[x.text for x in y] for y in found] == [
        [" ".join(str(token) for token in row if token > 1) for row in rows]
        for rows in drawn.completion
    ]
    ended = [[1 in row for row in rows] for rows in drawn.completion]
    assert [[x.ended for x in group] for group in found] == ended
    assert {True, False} == {x for group in ended for x in group}


def test_the_mixture_at_its_end_is_the_reference(policies):
    prompt = np.array([[5, 6, 1], [7, 1, 0]])
    mixed = completer(policies, reference_checkpoint=policies["mu"], beta=1.0).of_tokens(prompt)
    alone = completer(policies, checkpoint=policies["mu"]).of_tokens(prompt)
    policy = completer(policies).of_tokens(prompt)
    texts = [[[x.text for x in group] for group in found] for found in (mixed, alone, policy)]
    assert texts[0] == texts[1] != texts[2]


def test_a_prompt_that_is_cut_is_logged(policies, caplog):
    with caplog.at_level(logging.WARNING, "po_jax"):
        cut, fits = completer(policies, sampler=tiny.sampler(temperature=0.0)).of_texts(
            ["5 6 7 8 9", "4"]
        )
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 2 prompts are longer than 3 tokens: cut"
    ]
    tokens = np.array([[5, 6, 7], [4, 1, 0]])
    expected = completer(policies, sampler=tiny.sampler(temperature=0.0)).of_tokens(tokens)
    assert [[x.text for x in group] for group in (cut, fits)] == [
        [x.text for x in group] for group in expected
    ]


def test_the_end_of_a_prompt_is_kept_where_asked_for(policies):
    greedy = tiny.sampler(temperature=0.0)
    kept = completer(policies, sampler=greedy, keep_end=True).of_texts(["5 6 7 8 9", "4"])
    expected = completer(policies, sampler=greedy).of_tokens(np.array([[8, 9, 1], [4, 1, 0]]))
    assert kept == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "at least 1 sample, got 0"),
        ({"beta": 0.5}, "got beta 0.5 and reference None"),
        ({"beta": 1.5, "reference_checkpoint": "mu"}, r"beta in \[0, 1\], .* got beta 1.5"),
    ],
)
def test_mistakes_are_named(policies, options, message):
    with pytest.raises(ValueError, match=message):
        completer(policies, **options)


@pytest.mark.parametrize("texts", [[], ["5", " "]])
def test_prompts_must_say_something(policies, texts):
    with pytest.raises(ValueError, match="one or more prompts, none of them empty"):
        completer(policies).of_texts(texts)


def test_prompts_must_be_unicode(policies):
    """What a shell hands over of bytes that are no UTF-8."""
    text = b"5 \xff".decode("utf-8", "surrogateescape")
    with pytest.raises(ValueError, match=r"expected prompts in Unicode, got '5 \\udcff'"):
        completer(policies).of_texts(["5", text])
