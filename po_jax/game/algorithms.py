"""Algorithms of the lab: where the pairs come from, and which objective they meet.

The two axes of Calandriello et al. (2024). The objectives are the ones that train T5s.
"""

from collections.abc import Callable
import dataclasses
from functools import cache, partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from po_jax.game.equilibrium import Game, LogPolicy, mixture
from po_jax.losses import objectives, pairwise

Joint = Float[Array, "actions actions"]
Plan = Callable[[Game, LogPolicy], Joint]
Mixing = Callable[[LogPolicy, LogPolicy, float], LogPolicy]
Loss = Callable[[Float[Array, " pairs"], Float[Array, " pairs"]], Float[Array, " pairs"]]


@dataclasses.dataclass(frozen=True)
class Sampled:
    """y1 and y2 drawn independently from policy^(1 - beta) reference^beta, each with its beta.

    Attributes:
      beta1: weight of the reference in the policy that draws y1: 0 is the policy itself.
      beta2: the same for y2; (1, 1) is offline data from the reference.
      mixing: how the two policies are mixed: whole actions at a time, as in the theory, or token
        by token, as a sampler does.
    """

    beta1: float = 0.0
    beta2: float = 0.0
    mixing: Mixing = mixture

    def __call__(self, game: Game, log_policy: LogPolicy) -> Joint:
        """The probability of each ordered pair (y1, y2)."""
        rows = self.mixing(log_policy, game.log_reference, self.beta1)
        columns = self.mixing(log_policy, game.log_reference, self.beta2)
        return jnp.exp(rows)[:, None] * jnp.exp(columns)[None, :]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Pairs drawn independently from one fixed distribution, whatever the policy.

    Attributes:
      probabilities: of each action; an action may have none.
    """

    probabilities: tuple[float, ...]

    def __call__(self, game: Game, log_policy: LogPolicy) -> Joint:
        """The probability of each ordered pair (y1, y2)."""
        del game
        probabilities = jnp.asarray(self.probabilities, log_policy.dtype)
        return probabilities[:, None] * probabilities[None, :]


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """A plan that draws pairs and the objective they meet; a static argument of jitted functions.

    Attributes:
      plan: probability of each pair, given the game and the policy.
      objective: loss of each pair, as `po_jax.models.PolicyModel` takes it.
    """

    plan: Plan
    objective: objectives.Objective


def contrastive(loss: Loss, plan: Plan | None = None) -> Algorithm:
    """Any loss on the margin; online, from (policy, policy), unless a plan is given."""
    return Algorithm(plan or Sampled(), partial(objectives.contrastive, loss=loss))


@cache
def ipo_md(tau: float, beta: float, mixing: Mixing = mixture) -> Algorithm:
    """IPO on two draws of the mixture. With beta = 0 it is online IPO, with 1 offline IPO."""
    return contrastive(partial(pairwise.ipo, tau=tau), Sampled(beta, beta, mixing))


@cache
def online_dpo(tau: float) -> Algorithm:
    """DPO on two draws of the policy."""
    return contrastive(partial(pairwise.dpo, tau=tau))


@cache
def nash_md_pg(tau: float, beta: float, mixing: Mixing = mixture) -> Algorithm:
    """The policy gradient against the mixture: self-play with beta = 0, against mu with 1."""
    return Algorithm(Sampled(0.0, beta, mixing), partial(objectives.nash_md, tau=tau))


@cache
def rlhf(tau: float) -> Algorithm:
    """The policy gradient of the game's reward, with two draws and a leave-one-out baseline."""
    return Algorithm(Sampled(), partial(objectives.rlhf, tau=tau))
