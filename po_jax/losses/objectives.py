"""What a policy is trained on: the policy's log-probs of a pair and the batch, to a loss each.

An algorithm binds one of these, with its coefficients, as the objective of `models.PolicyModel`.
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from po_jax.logprobs import margin
from po_jax.losses import pairwise, policy_gradient
from po_jax.types import Coefficient, PreferenceBatch

Objective = Callable[[Float[Array, "batch 2"], PreferenceBatch], Float[Array, " batch"]]


def contrastive(
    policy: Float[Array, "batch 2"],
    batch: PreferenceBatch,
    *,
    loss: Callable[[Float[Array, " batch"], Float[Array, " batch"]], Float[Array, " batch"]],
) -> Float[Array, " batch"]:
    """`loss(margin, preference)`: `gpo`, `ipo`, `dpo` or `slic` with its coefficients bound."""
    return loss(margin(policy, batch.reference_logprob), batch.preference)


def nash_md(
    policy: Float[Array, "batch 2"], batch: PreferenceBatch, *, tau: Coefficient
) -> Float[Array, " batch"]:
    """`nash_md_pg` of the first completion, drawn from the policy, against the second."""
    return policy_gradient.nash_md_pg(
        policy[:, 0], batch.reference_logprob[:, 0], batch.preference, tau=tau
    )


def rlhf(
    policy: Float[Array, "batch 2"], batch: PreferenceBatch, *, tau: Coefficient
) -> Float[Array, " batch"]:
    """`policy_gradient` on the batch's rewards, both completions drawn from the policy.

    Raises:
      ValueError: if the batch holds no reward.
    """
    if batch.reward is None:
        raise ValueError("rlhf: expected a batch with rewards, got None: use a reward annotator")
    return policy_gradient.policy_gradient(policy, batch.reference_logprob, batch.reward, tau=tau)


def slic_hf(
    policy: Float[Array, "batch 2"],
    batch: PreferenceBatch,
    *,
    delta: Coefficient,
    sft_weight: Coefficient,
) -> Float[Array, " batch"]:
    """`pairwise.slic_hf`: needs no reference policy."""
    return pairwise.slic_hf(policy, batch.preference, delta=delta, sft_weight=sft_weight)
