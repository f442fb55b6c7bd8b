"""The judges that are trained: what their losses read, and that they learn what they are shown."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from po_jax.judges import PreferenceModel, RewardModel
from po_jax.judges.template import Template, compose
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.optimizers import Adafactor
from po_jax.types import PreferenceBatch

LANGUAGE_MODEL = T5LM(
    T5Config(
        vocab_size=16,
        emb_dim=16,
        num_heads=2,
        head_dim=6,
        mlp_dim=24,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout_rate=0.0,
    )
)
PREFERENCE = PreferenceModel(
    language_model=LANGUAGE_MODEL, template=Template(((10,), (11,), (12,)), (13, 14))
)
REWARD = RewardModel(language_model=LANGUAGE_MODEL, template=Template(((10,), (11,)), (13, 14)))
MODELS = {"preference": PREFERENCE, "reward": REWARD}
for of, judge in list(MODELS.items()):
    reading = dataclasses.replace(judge.template, decoded=True)
    MODELS[f"{of}, decoded"] = dataclasses.replace(judge, template=reading)


def pairs(seed: int, batch: int = 5) -> PreferenceBatch:
    """The completion with the larger first token is the better one."""
    random = np.random.default_rng(seed)
    completion = random.integers(2, 10, (batch, 2, 3))
    completion[:, 1, 0] = (completion[:, 0, 0] - 2 + random.integers(1, 8, batch)) % 8 + 2
    return PreferenceBatch(
        prompt=jnp.asarray(random.integers(2, 10, (batch, 4))),
        completion=jnp.asarray(completion),
        mask=jnp.ones(completion.shape, bool),
        preference=jnp.asarray(completion[:, 0, 0] > completion[:, 1, 0], jnp.float32),
        reference_logprob=jnp.zeros((batch, 2)),
    )


def swap(batch):
    return batch.replace(completion=batch.completion[:, ::-1], preference=1.0 - batch.preference)


@partial(jax.jit, static_argnums=1)
def log_odds(params, template, prompt, *completions):
    """The log-odds of the two verdicts, from the logits of the whole vocabulary."""
    fields = (completion[:, None] for completion in completions)
    question, _ = compose(template, LANGUAGE_MODEL.special_ids, prompt, *fields)
    logits = LANGUAGE_MODEL.module.apply(
        {"params": params}, question, jnp.zeros((question.shape[0], 1), jnp.int32)
    )
    return logits[:, 0, template.verdicts[0]] - logits[:, 0, template.verdicts[1]]


@pytest.fixture(scope="module")
def params():
    return LANGUAGE_MODEL.init(jax.random.key(0))


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_mistakes_are_named(params, model, unchecked):
    batch = pairs(0)
    for wrong in (batch.completion[:, :1], jnp.tile(batch.completion, (1, 2, 1))[:, :3]):
        with pytest.raises(
            ValueError, match=r"two completions of each prompt, .* got \[5, [13], 3"
        ):
            model.judge(params, batch.prompt, wrong)
    with pytest.raises(ValueError, match="expected prompts .* got \\[3, 4\\], \\[5, 2, 3\\]"):
        model.loss_fn(params, batch.replace(prompt=batch.prompt[:3]), None)
    for template in (
        dataclasses.replace(model.template, verdicts=(13, 16)),
        dataclasses.replace(model.template, pieces=((16,), *model.template.pieces[1:])),
    ):
        with pytest.raises(ValueError, match="template: expected ids below 16, .* got 16"):
            dataclasses.replace(model, template=template)


def test_preference_loss_is_the_cross_entropy_of_the_verdicts_in_both_orders(params):
    batch = pairs(0, batch=7)
    first, second = batch.completion[:, 0], batch.completion[:, 1]
    forward = log_odds(params, PREFERENCE.template, batch.prompt, first, second)
    backward = log_odds(params, PREFERENCE.template, batch.prompt, second, first)
    sign = 2 * np.asarray(batch.preference) - 1
    either = [np.mean(np.log1p(np.exp(-sign * x))) for x in (forward, -backward)]
    loss, metrics = jax.jit(PREFERENCE.loss_fn)(params, batch, None)
    np.testing.assert_allclose(loss, np.mean(either), rtol=1e-5)
    margin = np.asarray(jax.nn.sigmoid(forward) - jax.nn.sigmoid(backward))
    agreeing = sign * margin > 0
    assert 0 < agreeing.sum() < 7
    np.testing.assert_allclose(metrics["accuracy"].compute(), np.mean(agreeing))


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_the_loss_does_not_depend_on_which_completion_comes_first(params, model):
    batch = pairs(2)
    loss, swapped = (jax.jit(model.loss_fn)(params, b, None)[0] for b in (batch, swap(batch)))
    np.testing.assert_allclose(loss, swapped, rtol=1e-6)


def test_reward_loss_is_the_cross_entropy_of_the_reward_difference(params):
    batch = pairs(1)
    rewards = jnp.stack(
        [log_odds(params, REWARD.template, batch.prompt, batch.completion[:, i]) for i in (0, 1)],
        axis=1,
    )
    difference = np.asarray(rewards[:, 0] - rewards[:, 1])
    sign = 2 * np.asarray(batch.preference) - 1
    loss, metrics = jax.jit(REWARD.loss_fn)(params, batch, None)
    np.testing.assert_allclose(loss, np.mean(np.log1p(np.exp(-sign * difference))), rtol=1e-5)
    np.testing.assert_allclose(metrics["reward"].compute(), rewards.mean(), rtol=1e-4)
    np.testing.assert_allclose(REWARD.score_batch(params, batch), difference, atol=1e-5)
    predictions, aux = REWARD.predict_batch_with_aux(params, batch)
    np.testing.assert_allclose(aux["reward"], rewards, atol=1e-5)
    np.testing.assert_array_equal(predictions, difference < 0)


def test_preferences_of_both_orders_sum_to_one(params):
    batch = pairs(3)
    (predictions, aux), (_, swapped) = (
        PREFERENCE.predict_batch_with_aux(params, b) for b in (batch, swap(batch))
    )
    preference = np.asarray(aux["preference"])
    np.testing.assert_allclose(preference + swapped["preference"], 1.0)
    np.testing.assert_array_equal(predictions, preference < 0.5)
    assert 0 < preference.min() < 0.5 < preference.max() < 1


def test_scores_are_log_odds_of_the_preference(params):
    """So that seqio's scores of both kinds of judge have the sign of the better completion."""
    batch = pairs(3)
    score = np.asarray(PREFERENCE.score_batch(params, batch))
    preference = PREFERENCE.predict_batch_with_aux(params, batch)[1]["preference"]
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(-score)), preference, rtol=1e-5)
    np.testing.assert_allclose(score, -PREFERENCE.score_batch(params, swap(batch)), atol=1e-5)
    assert score.min() < 0 < score.max()


def test_tied_labels_do_not_count_as_right_or_wrong(params):
    batch = pairs(4)
    tied = batch.replace(preference=batch.preference.at[0].set(0.5))
    _, metrics = jax.jit(REWARD.loss_fn)(params, tied, None)
    assert metrics["accuracy"].count == 4


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_judges_learn_a_rule_even_if_the_better_one_always_comes_first(model, params):
    """Chance is 1/2; data are fresh at every step, so this is no memory."""
    optimizer = Adafactor(0.02)

    def chosen_first(seed):
        batch = pairs(seed, batch=64)
        better = batch.preference[:, None, None] > 0
        return batch.replace(
            completion=jnp.where(better, batch.completion, batch.completion[:, ::-1]),
            preference=jnp.ones(64),
        )

    @jax.jit
    def step(params, state, batch):
        grads, _ = jax.grad(model.loss_fn, has_aux=True)(params, batch, None)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for seed in range(200):
        params, state = step(params, state, chosen_first(seed))
    held_out = pairs(1000, batch=200)
    predictions, _ = model.predict_batch_with_aux(params, held_out)
    assert np.mean(np.asarray(predictions) == (np.asarray(held_out.preference) < 0.5)) > 0.9
