"""Held-out evaluations of supervised models and judges, against plain counting."""

import dataclasses
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.data import layouts
from po_jax.data.corpus import BatchStream
from po_jax.judges import CallableJudge, PreferenceModel, RewardModel
from po_jax.models import SupervisedModel
from po_jax.models.supervised import Normalizer
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Sampler, Strategy
from po_jax.training.held_out import JudgeEvaluation, PolicyEvaluation, SupervisedEvaluation
from po_jax.training.offline_feed import score_reference
from po_jax.training.online_feed import OnlineFeed
from po_jax.training.randomness import purpose_key
from po_jax.training.run import Run
from po_jax.training.state import TrainState
from tests.training import small_run
from tests.vocabularies import Numbers

PARAMS = jax.jit(small_run.MODEL.init)(jax.random.key(1))
STATE = TrainState(step=jnp.int32(0), params=PARAMS, optimizer_state=None)
RUN = Run(
    language_model=small_run.MODEL,
    load_reference=lambda: None,
    partitioner=make_partitioner(devices=jax.devices()[:1]),
    key=jax.random.key(4),
    directory=Path(),
)


def whole(stream):
    """All examples as one batch."""
    (batch,) = stream.one_pass()
    return batch


def test_the_rows_that_fill_the_last_batch_do_not_count():
    corpus = small_run.corpus()
    corpus = type(corpus)(
        tokens={"inputs": corpus.tokens["inputs"], "targets": corpus.tokens["completion_1"]},
        texts={},
        sizes=corpus.sizes,
        rates=corpus.rates,
    )
    model = SupervisedModel(language_model=small_run.MODEL)
    layout = layouts.Supervised(small_run.LENGTHS)
    evaluation = SupervisedEvaluation(RUN, model=model, examples=BatchStream(corpus, layout, 8))
    found, text = evaluation(STATE)
    everything = jax.tree.map(jnp.asarray, whole(BatchStream(corpus, layout, 21)).arrays)
    _, expected = model.eval_fn(PARAMS, everything)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(found[name], expected[name].compute(), rtol=1e-5)
    assert text == ""


def test_agreement_with_labels_is_counted_on_every_pair_once():
    comparisons = whole(small_run.comparisons(21)).arrays
    preference = comparisons["preference"]
    for model in (
        PreferenceModel(language_model=small_run.MODEL, template=small_run.TEMPLATE),
        RewardModel(
            language_model=small_run.MODEL,
            template=type(small_run.TEMPLATE)(pieces=((20,), (21,)), verdicts=(18, 19)),
        ),
    ):
        evaluation = JudgeEvaluation(RUN, model=model, comparisons=small_run.comparisons())
        found, _ = evaluation(STATE)
        score = np.asarray(model.score_batch(PARAMS, comparisons))
        first = score > 0.0
        assert found["comparisons"] == 21
        np.testing.assert_allclose(found["accuracy"], np.mean(first == (preference > 0.5)))


@pytest.mark.parametrize("batches", [0, -1])
def test_an_evaluation_asks_about_something(batches):
    model = SupervisedModel(language_model=small_run.MODEL)
    with pytest.raises(ValueError, match=f"expected max_batches of 1 or more, got {batches}"):
        SupervisedEvaluation(
            RUN, model=model, examples=small_run.comparisons(8), max_batches=batches
        )


def judge_evaluation(model, preference):
    """Of a model that has the score 0 about every pair, where labels are all this one."""
    corpus = dataclasses.replace(small_run.corpus(), preference=np.full(21, preference, "f4"))
    stream = BatchStream(corpus, layouts.Comparisons(small_run.LENGTHS), 8)
    return JudgeEvaluation(RUN, model=model, comparisons=stream)(STATE)[0]


@pytest.mark.parametrize("preference", [0.1, 0.9])
def test_a_judge_without_opinion_agrees_by_half(preference):
    model = NoOpinion(language_model=small_run.MODEL, template=small_run.TEMPLATE)
    assert judge_evaluation(model, preference) == {"comparisons": 21, "accuracy": 0.5}
    assert judge_evaluation(model, 0.5) == {"comparisons": 0}


class NoOpinion(PreferenceModel):
    def score_batch(self, params, batch):
        return jnp.zeros(len(batch["prompt"]))


def policy_evaluation(reference, batch_size=8, **options):
    """What is found of `STATE` against a reference on the 21 prompts, which fill no last batch."""
    made = PolicyEvaluation(
        dataclasses.replace(RUN, load_reference=lambda: reference),
        prompts=small_run.prompts(batch_size),
        **{"strategy": small_run.STRATEGY, "vocabulary": Numbers(), **options},
    )
    return made(STATE)[0]


def test_a_judge_that_favours_the_first_place_finds_no_winner_among_equals():
    judge = CallableJudge(lambda prompt, first, second: 0.8, Numbers())
    nearly = jax.tree.map(lambda x: x * (1.0 + 1e-6), PARAMS)
    assert policy_evaluation(nearly, judge=judge)["win_rate"] == pytest.approx(0.5, abs=1e-7)


def test_of_a_policy_and_itself_nobody_is_asked():
    def never(prompt, first, second):
        raise AssertionError

    found = policy_evaluation(PARAMS, judge=CallableJudge(never, Numbers()))
    assert found["win_rate"] == 0.5 and found["kl"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("changed", [{"temperature": 0.7}, {"temperature": 0.0}, {"top_k": 2}])
def test_the_kl_is_the_policys_own_however_completions_are_drawn(changed):
    reference = jax.tree.map(lambda x: 3.0 * x, PARAMS)
    found = policy_evaluation(reference, strategy=Strategy(5, **changed))
    # The mean over completions with nothing changed, scored token by token.
    ratios = []
    sampler = Sampler(small_run.MODEL, small_run.STRATEGY, RUN.partitioner, 8)
    for index, batch in enumerate(small_run.prompts().one_pass()):
        key = purpose_key(RUN.key, index, "kl")
        drawn = sampler.draw(PARAMS, reference, batch.arrays["prompt"], (0.0, 1.0), key)
        rows = (drawn.prompt, drawn.completion[:, :1], drawn.mask[:, :1])
        policy, mu = (score_reference(small_run.MODEL, p, *rows) for p in (PARAMS, reference))
        ratios.append(np.asarray(policy - mu)[batch.valid])
    np.testing.assert_allclose(found["kl"], np.concatenate(ratios).mean(), rtol=1e-4)
    with pytest.raises(ValueError, match="tokens drawn from the policy itself"):
        OnlineFeed(
            RUN,
            small_run.prompts(),
            annotator=small_run.judge(),
            strategy=Strategy(5, **changed),
            betas=(0.0, 0.25),
        )


@pytest.mark.parametrize("normalised", get_args(Normalizer))
def test_the_loss_does_not_depend_on_how_the_last_batch_was_filled(normalised):
    corpus = small_run.corpus()
    tokens = {"inputs": corpus.tokens["inputs"], "targets": corpus.tokens["completion_1"]}
    corpus = dataclasses.replace(corpus, tokens=tokens)
    model = SupervisedModel(language_model=small_run.MODEL, loss_normalizing_factor=normalised)
    found = [
        SupervisedEvaluation(
            RUN,
            model=model,
            examples=BatchStream(corpus, layouts.Supervised(small_run.LENGTHS), batch_size),
        )(STATE)[0]
        for batch_size in (8, 21)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
