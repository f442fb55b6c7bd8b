"""Games, their regularised value, best responses, and the exact points algorithms should reach.

The game of two policies, regularised towards a reference mu (Munos et al., "Nash Learning from
Human Feedback", 2023):

    J(pi, pi') = P(pi > pi') - tau KL(pi || mu) + tau KL(pi' || mu).

It is symmetric with value 1/2, and its only equilibrium solves pi ~ mu exp(P(. > pi) / tau).
Policies are vectors of log-probabilities over the actions; -inf is allowed where mu has no mass.
"""

from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float
import numpy as np

from po_jax.game.preferences import Numbers
from po_jax.game.solver import follow

LogPolicy = Float[Array, " actions"]
Opponent = Callable[[LogPolicy], LogPolicy]
Scalar = Float[Array, ""]


@flax.struct.dataclass
class Game:
    """A preference over actions, a reference policy, and a price for leaving it.

    Attributes:
      preference: P(row action > column action), P + P^T = 1.
      log_reference: log mu, normalised.
      tau: regularisation strength, > 0, in units of preference / nat.
      reward: reward of each action, for the algorithms that want one.
    """

    preference: Float[Array, "actions actions"]
    log_reference: Float[Array, " actions"]
    tau: float | Scalar
    reward: Float[Array, " actions"] | None = None


@flax.struct.dataclass
class Solution:
    """A policy with its certificate.

    Attributes:
      log_policy: the solution pi.
      gap: tau KL(pi || best response to its opponent): what deviating could still win.
      steps: Newton steps taken, over all stages.
    """

    log_policy: Float[Array, " actions"]
    gap: Scalar
    steps: int


def make_game(
    preference: Numbers, reference: Numbers, tau: float, reward: Numbers | None = None
) -> Game:
    """Builds a game from probabilities, checked.

    Raises:
      ValueError: if the preference is no antisymmetric matrix of probabilities, the reference
        is not a distribution over the same actions, tau is not positive, or JAX is not in
        float64.
    """
    preference = np.asarray(preference, np.float64)
    reference = np.asarray(reference, np.float64)
    if not np.allclose(preference + preference.T, 1.0, rtol=0.0, atol=1e-12):
        raise ValueError("make_game: expected a preference with P + P^T = 1, got one without")
    if preference.min() < 0.0 or preference.max() > 1.0:
        raise ValueError(
            f"make_game: expected preferences in [0, 1], got values in "
            f"[{preference.min()}, {preference.max()}]"
        )
    if reference.shape != preference.shape[:1]:
        raise ValueError(
            f"make_game: expected a reference over {len(preference)} actions, got shape "
            f"{reference.shape}"
        )
    if reference.min() < 0.0 or abs(reference.sum() - 1.0) > 1e-12:
        raise ValueError(
            f"make_game: expected a reference that sums to 1, got {reference.sum()} with least "
            f"value {reference.min()}"
        )
    if not tau > 0.0:
        raise ValueError(f"make_game: expected tau > 0, got {tau}")
    if not jax.config.read("jax_enable_x64"):
        raise ValueError("make_game: expected float64, got float32: use jax.enable_x64(True)")
    with np.errstate(divide="ignore"):
        log_reference = np.log(reference)
    return Game(
        preference=jnp.asarray(preference),
        log_reference=jnp.asarray(log_reference),
        tau=float(tau),
        reward=None if reward is None else jnp.asarray(reward, jnp.float64),
    )


def kl(log_p: Float[Array, "*batch actions"], log_q: Float[Array, "*batch actions"]) -> Array:
    """KL(p || q) in nats, with full relative precision also where p and q nearly agree.

    Sums p (exp(-r) - 1 + r), r = log p - log q, whose terms are never negative: the plain sum of
    p r cancels to nothing below 1e-16, and certificates of 1e-20 are what a solver is held to.
    """
    log_p, log_q = jnp.broadcast_arrays(log_p, log_q)
    p = jnp.exp(log_p)
    ratio = jnp.where(p > 0.0, log_p, 0.0) - jnp.where(p > 0.0, log_q, 0.0)
    near = jnp.abs(ratio) < 1.0
    small = jnp.where(near, ratio, 0.0)
    terms = jnp.where(near, p * (jnp.expm1(-small) + small), jnp.exp(log_q) - p + p * ratio)
    return jnp.sum(jnp.where(p > 0.0, terms, jnp.exp(log_q)), axis=-1)


def total_variation(log_p: LogPolicy, log_q: LogPolicy) -> Scalar:
    """Half the sum of |p - q|, in [0, 1]."""
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)))


def mixture(log_policy: LogPolicy, log_reference: LogPolicy, beta: float | Scalar) -> LogPolicy:
    """pi_beta ~ pi^(1 - beta) mu^beta, whole actions at a time; beta in [0, 1]."""
    beta = jnp.asarray(beta, log_policy.dtype)

    def weighted(weight: Array, log_p: Array) -> Array:
        return jnp.where(weight > 0.0, weight * log_p, 0.0)

    return jax.nn.log_softmax(weighted(1.0 - beta, log_policy) + weighted(beta, log_reference))


def win_rates(game: Game, log_opponent: LogPolicy) -> Float[Array, " actions"]:
    """P(y > opponent) for each action y."""
    return game.preference @ jnp.exp(log_opponent)


def value(game: Game, log_policy: LogPolicy, log_opponent: LogPolicy) -> Scalar:
    """J(policy, opponent), the regularised win rate; 1/2 for a policy against itself."""
    penalty = kl(log_policy, game.log_reference) - kl(log_opponent, game.log_reference)
    return jnp.exp(log_policy) @ win_rates(game, log_opponent) - game.tau * penalty


def best_response(game: Game, log_opponent: LogPolicy) -> LogPolicy:
    """argmax of J(., opponent): mu exp(P(. > opponent) / tau), normalised."""
    return jax.nn.log_softmax(game.log_reference + win_rates(game, log_opponent) / game.tau)


def exploitability(game: Game, log_policy: LogPolicy) -> Scalar:
    """max J(., policy) - 1/2, what a best response wins beyond its due; 0 only at equilibrium.

    Computed as tau KL(policy || best response), which it equals. It is half the duality gap of
    the pair (policy, policy), and no less than tau KL(policy || equilibrium).
    """
    return game.tau * kl(log_policy, best_response(game, log_policy))


def nash(game: Game) -> Solution:
    """The regularised Nash equilibrium: pi ~ mu exp(P(. > pi) / tau)."""
    return stationary_point(game, against_mixture(game, 0.0))


def against_mixture(game: Game, beta: float | Scalar) -> Opponent:
    """The opponent that IPO-MD and Nash-MD draw: the policy mixed with the reference."""
    beta = jnp.asarray(beta, game.log_reference.dtype)
    return Partial(mixture, log_reference=game.log_reference, beta=beta)


def stationary_point(game: Game, opponent: Opponent) -> Solution:
    """The policy that best responds to an opponent made of itself: pi ~ mu exp(P(. > opp) / tau).

    Solved for the advantage in nats, a = log pi - log mu + const, as a = (P - 1/2) opp(a) / tau.
    Against a mixture q = pi_beta the Jacobian 1 - (1 - beta) (P - 1/2) (diag q - q q^T) / tau is
    never singular: P - 1/2 is antisymmetric, so its eigenvalues lie on the line 1 + iR. That is
    why Newton's method converges where iterated best responses oscillate.

    Args:
      game: the game.
      opponent: what the policy plays against, as a function of the policy: a pytree (a
        `jax.tree_util.Partial`), so that its numbers need no new compilation.

    Raises:
      RuntimeError: if the gap is above 2e-20 tau. For a Nash equilibrium, which KL <= gap / tau
        and Pinsker's inequality keep within 1e-10 of the solution in total variation.
    """
    payoff = Partial(_payoff, game, opponent)
    advantage, steps = follow(payoff, float(game.tau), np.zeros(len(game.log_reference)))
    log_policy = _policy(game, jnp.asarray(advantage))
    answer = best_response(game, opponent(log_policy))
    gap = game.tau * kl(log_policy, answer)
    if not gap <= 2e-20 * game.tau:
        raise RuntimeError(
            f"stationary_point: expected a gap of at most {2e-20 * game.tau}, got {gap} after "
            f"{steps} steps at tau = {game.tau}"
        )
    return Solution(log_policy, gap, steps)


def _policy(game: Game, advantage: Array) -> LogPolicy:
    return jax.nn.log_softmax(game.log_reference + advantage)


def _payoff(game: Game, opponent: Opponent, advantage: Array) -> Float[Array, " actions"]:
    return (game.preference - 0.5) @ jnp.exp(opponent(_policy(game, advantage)))
