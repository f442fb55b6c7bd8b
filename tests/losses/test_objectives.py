"""Objectives: which parts of a batch meet which loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.losses import objectives, pairwise
from po_jax.losses.policy_gradient import nash_md_pg, policy_gradient
from po_jax.types import PreferenceBatch

POLICY = jnp.asarray([[-3.0, -5.0], [-4.0, -3.5], [-2.0, -2.5]])
BATCH = PreferenceBatch(
    prompt=jnp.zeros((3, 7), jnp.int32),
    completion=jnp.zeros((3, 2, 5), jnp.int32),
    mask=jnp.ones((3, 2, 5), bool),
    preference=jnp.asarray([1.0, 0.3, 0.6]),
    reference_logprob=jnp.asarray([[-3.5, -4.0], [-4.0, -4.0], [-2.0, -2.0]]),
    reward=jnp.asarray([[1.0, 0.0], [0.2, 0.4], [-1.0, 3.0]]),
)
MARGIN = jnp.asarray([1.5, -0.5, 0.5])


def test_contrastive_gives_the_loss_the_margin_and_the_preference():
    loss = functools.partial(pairwise.ipo, tau=0.5)
    np.testing.assert_allclose(
        objectives.contrastive(POLICY, BATCH, loss=loss), loss(MARGIN, BATCH.preference)
    )


def test_nash_md_learns_from_the_first_completion_only():
    objective = functools.partial(objectives.nash_md, tau=0.5)
    np.testing.assert_allclose(
        objective(POLICY, BATCH),
        nash_md_pg(POLICY[:, 0], BATCH.reference_logprob[:, 0], BATCH.preference, tau=0.5),
    )
    slope = jax.grad(lambda x: jnp.sum(objective(x, BATCH)))(POLICY)
    assert np.all(slope[:, 0] != 0) and np.all(slope[:, 1] == 0)


def test_rlhf_uses_the_rewards_and_asks_for_them():
    np.testing.assert_allclose(
        objectives.rlhf(POLICY, BATCH, tau=0.5),
        policy_gradient(POLICY, BATCH.reference_logprob, BATCH.reward, tau=0.5),
    )
    with pytest.raises(ValueError, match="expected a batch with rewards"):
        objectives.rlhf(POLICY, BATCH.replace(reward=None), tau=0.5)


def test_slic_hf_needs_no_reference():
    batch = BATCH.replace(reference_logprob=jnp.full((3, 2), jnp.nan))
    np.testing.assert_allclose(
        objectives.slic_hf(POLICY, batch, delta=1.0, sft_weight=0.1),
        pairwise.slic_hf(POLICY, BATCH.preference, delta=1.0, sft_weight=0.1),
    )


def test_simpo_needs_no_reference():
    batch = BATCH.replace(reference_logprob=jnp.full((3, 2), jnp.nan))
    np.testing.assert_allclose(
        objectives.simpo(POLICY, batch, scale=2.0, target=1.0),
        pairwise.simpo(POLICY, BATCH.preference, scale=2.0, target=1.0),
    )


def test_the_likelihood_is_of_the_first_alone():
    gradient = jax.grad(lambda policy: objectives.likelihood(policy, BATCH).sum())(POLICY)
    np.testing.assert_array_equal(gradient, np.tile([-1.0, 0.0], (3, 1)))


@pytest.mark.parametrize(
    "objective",
    [
        functools.partial(objectives.contrastive, loss=pairwise.ipo),
        functools.partial(objectives.contrastive, loss=pairwise.dpo),
        objectives.nash_md,
        objectives.rlhf,
    ],
)
def test_tau_may_be_a_schedule_of_the_batchs_step(objective):
    def schedule(step):
        return 0.25 * step.astype(jnp.float32)

    batch = BATCH.replace(step=jnp.full(3, 2, jnp.int32))
    scheduled = jax.jit(lambda policy, batch: objective(policy, batch, tau=schedule))
    np.testing.assert_allclose(
        scheduled(POLICY, batch), objective(POLICY, batch, tau=0.5), rtol=1e-6
    )
    assert (scheduled(POLICY, batch.replace(step=batch.step + 1)) != scheduled(POLICY, batch)).any()
    with pytest.raises(ValueError, match="a batch that knows its step"):
        objective(POLICY, BATCH, tau=schedule)


@pytest.mark.parametrize("objective", [objectives.contrastive, objectives.nash_md, objectives.rlhf])
@pytest.mark.parametrize("tau", [-0.1, float("nan")])
def test_a_negative_strength_means_nothing(objective, tau):
    settings = {"loss": pairwise.ipo} if objective is objectives.contrastive else {}
    with pytest.raises(ValueError, match=f"expected tau of 0 or more, got {tau}"):
        objective(POLICY, BATCH, tau=tau, **settings)
