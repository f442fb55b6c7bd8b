"""What a policy is trained on: the policy's log-probs of a pair and the batch, to a loss each.

An algorithm binds one of these, with its coefficients, as the objective of `models.PolicyModel`.
The strength of the regularisation, `tau`, is a number or a schedule of the training step.
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from po_jax.logprobs import margin
from po_jax.losses import pairwise, policy_gradient
from po_jax.types import Coefficient, PreferenceBatch, Schedule

Objective = Callable[[Float[Array, "batch 2"], PreferenceBatch], Float[Array, " batch"]]


def at_step(coefficient: Coefficient | Schedule, batch: PreferenceBatch) -> Coefficient:
    """A coefficient's value at the step of the batch.

    Raises:
      ValueError: if it is a schedule and the batch does not know its step, or a negative number.
    """
    if not callable(coefficient):
        if isinstance(coefficient, float | int) and not coefficient >= 0.0:
            raise ValueError(f"expected tau of 0 or more, got {coefficient}")
        return coefficient
    if batch.step is None:
        raise ValueError("expected a batch that knows its step, for a schedule, got step None")
    return coefficient(batch.step[0])


def contrastive(
    policy: Float[Array, "batch 2"],
    batch: PreferenceBatch,
    *,
    loss: Callable[..., Float[Array, " batch"]],
    tau: Coefficient | Schedule | None = None,
) -> Float[Array, " batch"]:
    """`loss(margin, preference, tau=tau)`: `ipo`, `dpo`, `slic`, or `gpo` with its f bound.

    Without `tau` the loss has its own.
    """
    h = margin(policy, batch.reference_logprob)
    if tau is None:
        return loss(h, batch.preference)
    return loss(h, batch.preference, tau=at_step(tau, batch))


def nash_md(
    policy: Float[Array, "batch 2"], batch: PreferenceBatch, *, tau: Coefficient | Schedule
) -> Float[Array, " batch"]:
    """`nash_md_pg` of the first completion, drawn from the policy, against the second."""
    return policy_gradient.nash_md_pg(
        policy[:, 0], batch.reference_logprob[:, 0], batch.preference, tau=at_step(tau, batch)
    )


def rlhf(
    policy: Float[Array, "batch 2"], batch: PreferenceBatch, *, tau: Coefficient | Schedule
) -> Float[Array, " batch"]:
    """`policy_gradient` on the batch's rewards, both completions drawn from the policy.

    Raises:
      ValueError: if the batch holds no reward.
    """
    if batch.reward is None:
        raise ValueError("rlhf: expected a batch with rewards, got None: use a judge with rewards")
    return policy_gradient.policy_gradient(
        policy, batch.reference_logprob, batch.reward, tau=at_step(tau, batch)
    )


def likelihood(policy: Float[Array, "batch 2"], batch: PreferenceBatch) -> Float[Array, " batch"]:
    """-log pi(y1): fine-tuning on the first of each pair, a feed's best of several candidates."""
    del batch
    return -policy[:, 0]


def slic_hf(
    policy: Float[Array, "batch 2"],
    batch: PreferenceBatch,
    *,
    delta: Coefficient,
    sft_weight: Coefficient,
) -> Float[Array, " batch"]:
    """`pairwise.slic_hf`: needs no reference policy."""
    return pairwise.slic_hf(policy, batch.preference, delta=delta, sft_weight=sft_weight)


def simpo(
    policy: Float[Array, "batch 2"],
    batch: PreferenceBatch,
    *,
    scale: Coefficient,
    target: Coefficient,
) -> Float[Array, " batch"]:
    """`pairwise.simpo`: needs no reference policy, and log pi as the mean over tokens."""
    return pairwise.simpo(policy, batch.preference, scale=scale, target=target)
