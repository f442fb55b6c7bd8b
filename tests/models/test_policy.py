"""The policy model: losses and metrics by hand, the encoder's single run, T5X's contract."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.losses import objectives, pairwise
from po_jax.models import PolicyModel
from po_jax.planning.flops import matrix_flops
from po_jax.sampling import Strategy
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.types import PreferenceBatch

LANGUAGE_MODEL = T5LM(
    T5Config(
        vocab_size=12,
        emb_dim=8,
        num_heads=2,
        head_dim=3,
        mlp_dim=5,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout_rate=0.5,
    )
)
IPO = partial(objectives.contrastive, loss=pairwise.ipo, tau=0.5)
MODEL = PolicyModel(
    language_model=LANGUAGE_MODEL, objective=IPO, strategy=Strategy(4, temperature=0.0)
)
EOS = 1


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (partial(objectives.contrastive, loss=pairwise.ipo, tau=-0.5), "expected tau of 0 or more"),
        (partial(objectives.contrastive, loss=pairwise.dpo, tau=0.0), "dpo: expected tau > 0"),
        (partial(objectives.contrastive, loss=pairwise.ipo), "missing .* 'tau'"),
        (partial(objectives.slic_hf, delta=0.0, sft_weight=0.1), "expected delta > 0, got 0"),
        (partial(objectives.nash_md, tau=float("nan")), "expected tau of 0 or more, got nan"),
    ],
)
def test_an_objective_that_cannot_work_is_refused_before_any_batch(objective, message):
    with pytest.raises(ValueError, match=rf"PolicyModel.objective: .*{message}"):
        PolicyModel(language_model=LANGUAGE_MODEL, objective=objective)


@pytest.fixture(scope="module")
def params():
    return LANGUAGE_MODEL.init(jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    """Three prompts; completions of 2, 4 (cut off), 1, 3, 4 and 2 tokens."""
    completion = jnp.asarray(
        [
            [[5, EOS, 0, 0], [6, 7, 8, 9]],
            [[EOS, 0, 0, 0], [4, 4, EOS, 0]],
            [[3, 2, 7, EOS], [9, EOS, 0, 0]],
        ]
    )
    return PreferenceBatch(
        prompt=jnp.asarray([[3, 4, 5, EOS, 0], [6, EOS, 0, 0, 0], [7, 8, 9, 2, EOS]]),
        completion=completion,
        mask=completion > 0,
        preference=jnp.asarray([1.0, 0.5, 0.2]),
        reference_logprob=jnp.asarray([[-4.0, -9.0], [-2.0, -7.0], [-9.0, -5.0]]),
    )


@pytest.fixture(scope="module")
def policy(params, batch):
    """log pi of each completion, summed over its tokens, scored one at a time."""
    one = jax.jit(lambda x, y, m: jnp.sum(LANGUAGE_MODEL.score(params, x, y, m)))
    return np.asarray(
        [
            [
                one(
                    batch.prompt[i : i + 1],
                    batch.completion[i : i + 1, j : j + 1],
                    batch.mask[i : i + 1, j : j + 1],
                )
                for j in range(2)
            ]
            for i in range(3)
        ]
    )


def values(metrics):
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def test_loss_and_metrics_are_those_of_completions_scored_alone(params, batch, policy):
    loss, metrics = jax.jit(MODEL.loss_fn)(params, batch, None)
    ratio = policy - np.asarray(batch.reference_logprob)
    margin = ratio[:, 0] - ratio[:, 1]
    expected = {
        "loss": float(np.mean(pairwise.ipo(jnp.asarray(margin), batch.preference, tau=0.5))),
        "margin": margin.mean(),
        # The tie does not count.
        "accuracy": np.mean([margin[0] > 0, margin[2] < 0]),
        "log_ratio": ratio.mean(),
        "nll": -policy.mean(),
        "length": 16 / 6,
        "eos_rate": 5 / 6,
    }
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
    assert values(metrics) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(MODEL.score_batch(params, batch), margin, rtol=1e-4)


def test_the_mean_reduction_averages_policy_and_reference_alike(params, batch, policy):
    model = dataclasses.replace(MODEL, reduce="mean")
    ratio = (policy - np.asarray(batch.reference_logprob)) / np.asarray(batch.mask).sum(axis=-1)
    margin = ratio[:, 0] - ratio[:, 1]
    _, metrics = jax.jit(model.loss_fn)(params, batch, None)
    expected = np.mean(pairwise.ipo(jnp.asarray(margin), batch.preference, tau=0.5))
    np.testing.assert_allclose(metrics["loss"].compute(), expected, rtol=1e-5)


def test_the_margin_is_exactly_zero_at_the_reference(params, batch):
    @jax.jit
    def margin(params):
        logprobs = LANGUAGE_MODEL.score(params, batch.prompt, batch.completion, batch.mask)
        at_reference = batch.replace(reference_logprob=jnp.sum(logprobs, axis=-1))
        return MODEL.score_batch(params, at_reference)

    np.testing.assert_array_equal(margin(params), 0.0)


def test_gradients_do_not_reach_past_the_eos(params, batch):
    """Tokens after the mask's end change neither loss nor gradient."""
    garbage = batch.replace(completion=jnp.where(batch.mask, batch.completion, 7))
    compute = jax.jit(jax.value_and_grad(lambda p, b: MODEL.loss_fn(p, b, None)[0]))
    (loss, grads), (other_loss, other_grads) = (compute(params, b) for b in (batch, garbage))
    np.testing.assert_allclose(loss, other_loss, rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), grads, other_grads)


def test_the_second_completion_need_not_be_differentiated(params, batch):
    """Loss, metrics and gradient stay; of its backward pass nothing does."""
    both = dataclasses.replace(MODEL, objective=partial(objectives.nash_md, tau=0.3))
    first = dataclasses.replace(both, learned=1)

    def gradient(model):
        return jax.jit(jax.value_and_grad(lambda p: model.loss_fn(p, batch, None), has_aux=True))

    ((loss, metrics), slope), ((expected, wanted), whole) = (
        gradient(model)(params) for model in (first, both)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert values(metrics) == pytest.approx(values(wanted), rel=1e-5)
    for one, other in zip(jax.tree.leaves(slope), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    less, all_of_it, alone = (
        matrix_flops(function.trace(params).jaxpr, 1)
        for function in (
            gradient(first),
            gradient(both),
            jax.jit(lambda p: LANGUAGE_MODEL.score(p, batch.prompt, batch.completion, batch.mask)),
        )
    )
    encoder = matrix_flops(
        jax.jit(lambda p: LANGUAGE_MODEL.encode(p, batch.prompt)).trace(params).jaxpr, 1
    )
    # A backward pass is two products for each of the forward one, but for the first layer's input,
    # keys and values of the prompts, which the passes of both completions now make each by itself.
    assert 0.4 * (alone - encoder) < all_of_it - less < (alone - encoder)


def test_an_objective_of_both_completions_is_not_said_to_be_of_one():
    with pytest.raises(ValueError, match="PolicyModel.learned: expected 2"):
        dataclasses.replace(MODEL, learned=1)


def test_the_encoder_runs_once_for_both_completions(params, batch):
    """Self-attention of the encoder is over [3, 5] tokens, never over [6, 5]."""
    text = jax.jit(MODEL.loss_fn).lower(params, batch, None).as_text()
    assert "tensor<3x5x8xf32>" in text and "tensor<6x5x8xf32>" not in text


def test_dropout_needs_a_key(params, batch):
    loss = jax.jit(lambda key: MODEL.loss_fn(params, batch, key)[0])
    first, again, other = (loss(jax.random.key(i)) for i in (1, 1, 2))
    assert first == again != other
    eval_loss, _ = jax.jit(MODEL.eval_fn)(params, batch)
    np.testing.assert_allclose(eval_loss, jax.jit(MODEL.loss_fn)(params, batch, None)[0], rtol=1e-6)


def test_a_mapping_will_do_for_a_batch(params, batch):
    """T5X hands over mappings."""
    fields = {
        field.name: getattr(batch, field.name)
        for field in dataclasses.fields(batch)
        if getattr(batch, field.name) is not None
    }
    compute = jax.jit(lambda b: MODEL.loss_fn(params, b, None)[0])
    assert compute(fields) == compute(batch)


def test_predictions_are_completions_of_the_prompts(params, batch):
    predictions, aux = MODEL.predict_batch_with_aux(params, batch, jax.random.key(0))
    assert predictions.shape == (3, 4)
    ended = np.asarray(predictions) == EOS
    mask = jnp.asarray(np.cumsum(ended, axis=1) - ended == 0)
    scores = jnp.sum(
        LANGUAGE_MODEL.score(params, batch.prompt, predictions[:, None], mask[:, None]), (1, 2)
    )
    np.testing.assert_allclose(aux["scores"], scores, atol=1e-4)
    np.testing.assert_array_equal(MODEL.predict_batch(params, batch), predictions)


def test_initial_variables_and_axis_names_have_the_same_tree():
    variables = jax.eval_shape(
        partial(MODEL.get_initial_variables, input_shapes={"prompt": (3, 5)}),
        rng=jax.random.key(0),
    )
    axes = MODEL.parameter_axes()
    jax.tree.map(
        lambda p, names: np.testing.assert_equal(len(names), p.ndim), variables["params"], axes
    )
    assert axes["token_embedder"]["embedding"] == ("vocab", "embed")
