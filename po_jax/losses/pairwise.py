"""Losses on the margin of a pair: the GPO family, IPO, DPO and SLiC; SLiC-HF and SimPO.

GPO: Tang et al., arXiv 2402.05749, section 2. IPO: Azar et al., arXiv 2310.12036, section 5. DPO:
Rafailov et al., arXiv 2305.18290, equation 7. SLiC-HF: Zhao et al., arXiv 2305.10425. SimPO: Meng
et al., arXiv 2405.14734, equation 6.

Preferences p are labels in [0, 1]: data, never differentiated.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from po_jax.losses.ranges import check_not_negative, check_positive
from po_jax.types import Coefficient

Scalar = Float[Array, "*shape"]


def logistic(z: Scalar) -> Scalar:
    """log(1 + exp(-z)): GPO with it is DPO."""
    return jax.nn.softplus(-z)


def hinge(z: Scalar) -> Scalar:
    """max(0, 1 - z): GPO with it is SLiC. The derivative at z = 1 is taken to be 0."""
    return jax.nn.relu(1.0 - z)


def squared(z: Scalar) -> Scalar:
    """(1 - z)^2: GPO with it is IPO."""
    return jnp.square(1.0 - z)


def exponential(z: Scalar) -> Scalar:
    """exp(-z). Overflows float32 below z = -88."""
    return jnp.exp(-z)


def truncated_quadratic(z: Scalar) -> Scalar:
    """max(0, 1 - z)^2."""
    return jnp.square(jax.nn.relu(1.0 - z))


def savage(z: Scalar) -> Scalar:
    """1 / (1 + exp(z))^2: bounded, and convex only for z > -log 2."""
    return jnp.square(jax.nn.sigmoid(-z))


CONVEX_FUNCTIONS: dict[str, Callable[[Scalar], Scalar]] = {
    "logistic": logistic,
    "hinge": hinge,
    "squared": squared,
    "exponential": exponential,
    "truncated_quadratic": truncated_quadratic,
    "savage": savage,
}


def _expected(
    f: Callable[[Scalar], Scalar], z: Float[Array, " batch"], preference: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """p f(z) + (1 - p) f(-z), where a term of weight 0 is 0 even if f overflows there.

    Without the inner `where`, the gradient of that term would be 0 * inf = nan.
    """

    def term(weight: Array, z: Array) -> Array:
        present = weight > 0
        return jnp.where(present, weight * f(jnp.where(present, z, 0.0)), 0.0)

    return term(preference, z) + term(1.0 - preference, -z)


def gpo(
    margin: Float[Array, " batch"],
    preference: Float[Array, " batch"],
    *,
    f: Callable[[Scalar], Scalar],
    tau: Coefficient,
) -> Float[Array, " batch"]:
    """p f(tau h) + (1 - p) f(-tau h).

    Args:
      margin: h, in nats.
      preference: p = P(y1 > y2) in [0, 1].
      f: one of `CONVEX_FUNCTIONS`, or any function with f'(0) < 0.
      tau: regularisation strength, > 0, in units of 1 / nat.

    Raises:
      ValueError: if `tau` is not positive.
    """
    check_positive("gpo", tau=tau)
    return _expected(f, tau * margin, preference)


def ipo(
    margin: Float[Array, " batch"], preference: Float[Array, " batch"], *, tau: Coefficient
) -> Float[Array, " batch"]:
    """p (h - 1/(2 tau))^2 + (1 - p) (h + 1/(2 tau))^2: IPO, with soft labels.

    Equal to (h - (2p - 1)/(2 tau))^2 plus a constant in the policy.

    Raises:
      ValueError: if `tau` is not positive.
    """
    check_positive("ipo", tau=tau)
    target = 0.5 / tau
    return preference * jnp.square(margin - target) + (1.0 - preference) * jnp.square(
        margin + target
    )


def dpo(
    margin: Float[Array, " batch"], preference: Float[Array, " batch"], *, tau: Coefficient
) -> Float[Array, " batch"]:
    """-p log sigmoid(tau h) - (1 - p) log sigmoid(-tau h): GPO with `logistic`.

    Raises:
      ValueError: if `tau` is not positive.
    """
    check_positive("dpo", tau=tau)
    return gpo(margin, preference, f=logistic, tau=tau)


def slic(
    margin: Float[Array, " batch"], preference: Float[Array, " batch"], *, tau: Coefficient
) -> Float[Array, " batch"]:
    """p max(0, 1 - tau h) + (1 - p) max(0, 1 + tau h): GPO with `hinge`.

    Raises:
      ValueError: if `tau` is not positive.
    """
    check_positive("slic", tau=tau)
    return gpo(margin, preference, f=hinge, tau=tau)


def slic_hf(
    policy: Float[Array, "batch 2"],
    preference: Float[Array, " batch"],
    *,
    delta: Coefficient,
    sft_weight: Coefficient,
) -> Float[Array, " batch"]:
    """max(0, delta - log pi(y+) + log pi(y-)) - sft_weight log pi(y+): SLiC-HF.

    No reference policy: the supervised term, on the preferred completion, regularises. With a
    soft label both terms are expected under y+ = y1 with probability p, else y2.

    Args:
      policy: log pi of both completions, summed over tokens, in nats.
      preference: p = P(y1 > y2) in [0, 1].
      delta: margin to reach, > 0, in nats.
      sft_weight: weight of the supervised term, >= 0.

    Raises:
      ValueError: if `delta` is not positive or `sft_weight` is negative.
    """
    check_positive("slic_hf", delta=delta)
    check_not_negative("slic_hf", sft_weight=sft_weight)
    calibration = _expected(
        lambda z: jax.nn.relu(delta - z), policy[:, 0] - policy[:, 1], preference
    )
    preferred = preference * policy[:, 0] + (1.0 - preference) * policy[:, 1]
    return calibration - sft_weight * preferred


def simpo(
    policy: Float[Array, "batch 2"],
    preference: Float[Array, " batch"],
    *,
    scale: Coefficient,
    target: Coefficient,
) -> Float[Array, " batch"]:
    """-log sigma(scale (log pi(y+) / |y+| - log pi(y-) / |y-|) - target): SimPO.

    No reference policy. With a soft label the loss is expected under y+ = y1 with probability p,
    else y2.

    Args:
      policy: log pi of both completions, the mean over their tokens, in nats.
      preference: p = P(y1 > y2) in [0, 1].
      scale: > 0, the paper's beta.
      target: margin to reach, >= 0, the paper's gamma.

    Raises:
      ValueError: if `scale` is not positive or `target` is negative.
    """
    check_positive("simpo", scale=scale)
    check_not_negative("simpo", target=target)
    difference = scale * (policy[:, 0] - policy[:, 1])
    return _expected(lambda z: logistic(z - target), difference, preference)
