"""What the online paper claims, in numbers: each study returns the arrays that a figure shows.

Calandriello et al., "Human Alignment of Large Language Models through Online Preference
Optimisation" (2024).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array
import numpy as np

from po_jax.game import preferences
from po_jax.game.algorithms import (
    Algorithm,
    Sampled,
    contrastive,
    ipo_md,
    nash_md_pg,
    online_dpo,
)
from po_jax.game.autoregressive import Tree, all_completions, token_mixture
from po_jax.game.dynamics import Path, flow, measure, mirror
from po_jax.game.equilibrium import (
    Game,
    LogPolicy,
    against_mixture,
    exploitability,
    kl,
    make_game,
    mixture,
    nash,
    stationary_point,
    total_variation,
    value,
)
from po_jax.game.gradients import expected_gradient, gradient_covariance
from po_jax.game.language import Player
from po_jax.language_model import LanguageModel

Numbers = dict[str, np.ndarray]

# Most figures play rock-paper-scissors with a reference that likes rock, and a policy that begins
# there or by saying scissors.
REFERENCE = (0.7, 0.2, 0.1)
FAR_START = (0.02, 0.03, 0.95)
BETAS = (0.0, 0.125, 0.5, 1.0)
# Step of a flow of IPO. Policy gradients take 4 / tau times it: at beta = 0 both then coincide.
RATE = 0.02
# The same length for all, so that studies share what is compiled.
walk = partial(flow, steps=1000, geometry=mirror)


def cyclic_game(tau: float = 0.2, strength: float = 0.8) -> Game:
    """Rock-paper-scissors with the reference of the figures."""
    return make_game(preferences.cyclic(3, strength), REFERENCE, tau)


def identities(tau: float = 0.2) -> Numbers:
    """Relative errors of the gradient identities at policies ever further from the reference."""
    game = cyclic_game(tau)
    direction = jnp.array([-1.0, 0.2, 0.8])
    distances = np.geomspace(1e-3, 10.0, 41)

    def half_squared_margin(margin: Array, preference: Array) -> Array:
        del preference
        return 0.5 * jnp.square(margin)

    online = contrastive(half_squared_margin)
    offline = contrastive(half_squared_margin, Sampled(1.0, 1.0))

    def regularised_value(log_policy: LogPolicy) -> Array:
        log_policy = jax.nn.log_softmax(log_policy)
        return value(game, log_policy, jax.lax.stop_gradient(log_policy))

    def divergence(log_policy: LogPolicy) -> Array:
        return kl(jax.nn.log_softmax(log_policy), game.log_reference)

    def errors(distance: Array) -> Array:
        policy = game.log_reference + distance * direction
        ascent, spread = jax.grad(regularised_value)(policy), jax.grad(divergence)(policy)
        pairs = (
            (expected_gradient(ipo_md(tau, 0.0), game, policy), -4.0 / tau * ascent),
            (expected_gradient(online, game, policy), 2.0 * spread),
            (expected_gradient(offline, game, policy), 2.0 * spread),
        )
        norm = jnp.linalg.norm
        return jnp.stack([norm(actual - exact) / norm(exact) for actual, exact in pairs])

    online_ipo, online_square, offline_square = np.asarray(
        jax.vmap(errors, out_axes=1)(jnp.asarray(distances))
    )
    return {
        "distance": distances,
        "online_ipo": online_ipo,
        "online_square": online_square,
        "offline_square": offline_square,
    }


def stationary_points(tau: float = 0.2) -> Numbers:
    """Where IPO-MD and Nash-MD-PG stop, for every beta: solved, and walked to at four of them."""
    game = cyclic_game(tau)
    betas = np.linspace(0.0, 1.0, 41)
    points = [stationary_point(game, against_mixture(game, beta)).log_policy for beta in betas]
    numbers = {
        "beta": betas,
        "policy": np.exp(np.stack(points)),
        "exploitability": np.array([exploitability(game, point) for point in points]),
        "kl": np.array([kl(point, game.log_reference) for point in points]),
        "walked_beta": np.array(BETAS),
    }
    for name, algorithm, rate in (
        ("ipo_md", ipo_md, RATE),
        ("nash_md_pg", nash_md_pg, RATE * 4.0 / tau),
    ):
        paths = [walk(algorithm(tau, beta), game, game.log_reference, rate=rate) for beta in BETAS]
        numbers[name] = np.exp(np.stack([path[-1] for path in paths]))
    return numbers


def trajectories(tau: float = 0.2) -> dict[str, Numbers]:
    """Six algorithms on the cyclic game: their paths in the simplex and what they achieve."""
    game = cyclic_game(tau)
    start = jnp.log(jnp.array(FAR_START))
    speed = RATE * 4.0 / tau
    algorithms = {
        "online IPO": (ipo_md(tau, 0.0), RATE),
        "IPO-MD, β = 0.5": (ipo_md(tau, 0.5), RATE),
        "Nash-MD-PG, β = 0.5": (nash_md_pg(tau, 0.5), speed),
        "best response to μ": (nash_md_pg(tau, 1.0), speed),
        "online DPO": (online_dpo(tau), speed),
        "self-play, no regulariser": (nash_md_pg(0.0, 0.0), speed),
    }
    paths = {
        name: walk(algorithm, game, start, rate=rate)[:800]
        for name, (algorithm, rate) in algorithms.items()
    }
    numbers = {
        name: {"policy": np.exp(path), **{k: np.asarray(v) for k, v in measure(game, path).items()}}
        for name, path in paths.items()
    }
    equilibrium = np.exp(nash(game).log_policy)
    numbers["equilibrium"] = {"policy": equilibrium[None]}
    return numbers


def alignment(tau: float = 0.2) -> Numbers:
    """Cosine of IPO-MD's and Nash-MD-PG's exact gradients along IPO-MD's path, for each beta."""
    game = cyclic_game(tau)
    start = jnp.log(jnp.array(FAR_START))

    def cosine(beta: float, log_policy: LogPolicy) -> Array:
        first, second = (
            expected_gradient(algorithm(tau, beta), game, log_policy)
            for algorithm in (ipo_md, nash_md_pg)
        )
        return first @ second / (jnp.linalg.norm(first) * jnp.linalg.norm(second))

    cosines, distances = [], []
    for beta in BETAS:
        path = walk(ipo_md(tau, beta), game, start, rate=RATE)
        point = stationary_point(game, against_mixture(game, beta)).log_policy
        cosines.append(np.asarray(jax.vmap(partial(cosine, beta))(path)))
        distances.append(np.asarray(jax.vmap(partial(total_variation, log_q=point))(path)))
    return {
        "beta": np.array(BETAS),
        "cosine": np.stack(cosines),
        "distance": np.stack(distances),
    }


def variances(tau: float = 0.3) -> dict[str, Numbers]:
    """Variance of one pair's gradient, contrastive and not, along online IPO in two games."""
    games = {
        "from the reference": (cyclic_game(tau), REFERENCE),
        "from where the reference is thin": (
            make_game(preferences.cyclic(3, 0.8), (0.98, 0.01, 0.01), tau),
            (0.05, 0.9, 0.05),
        ),
    }
    numbers = {}
    for name, (game, start) in games.items():
        algorithm = ipo_md(tau, 0.0)
        start = jnp.log(jnp.array(start))
        path = walk(algorithm, game, start, rate=0.01)[:300]
        numbers[name] = {
            "time": 0.01 * np.arange(len(path)),
            "contrastive": (tau / 4.0) ** 2 * _traces(algorithm, game, path),
            "single": _traces(nash_md_pg(tau, 0.0), game, path),
        }
    return numbers


def _traces(algorithm: Algorithm, game: Game, path: Path) -> np.ndarray:
    def trace(log_policy: LogPolicy) -> Array:
        return jnp.trace(gradient_covariance(algorithm, game, log_policy))

    return np.asarray(jax.vmap(trace)(path))


def token_mixtures(model: LanguageModel, tau: float = 0.1) -> Numbers:
    """How far a sampler's mixture, token by token, is from the theory's, on a real network.

    Between two random policies, over all completions of at most three tokens (85 of five words);
    and how far apart the stationary points are that IPO-MD has with the one and with the other.

    Args:
      model: with a vocabulary of a few words, prompts of the words 1 to 4 included.
      tau: strength of the regularisation, > 0.
    """
    tree = all_completions(vocab_size=model.vocab_size, max_length=3)
    with jax.enable_x64(False):
        init = jax.jit(model.init)
        policy, reference = (init(jax.random.key(seed)) for seed in (0, 1))
        player = Player(model, jnp.array([3, 4, 2, 1], jnp.int32), tree)
    game = player.game(reference, preferences.random(0, len(tree.tokens)), tau)
    log_policy = jnp.log(jnp.asarray(player.probabilities(policy)))
    betas = np.linspace(0.0, 1.0, 21)
    solved = np.linspace(0.0, 1.0, 5)
    return {
        "beta": betas,
        "mixture": np.array([_gap(tree, log_policy, game.log_reference, b) for b in betas]),
        "solved_beta": solved,
        "stationary": np.array([_stationary_gap(tree, game, beta) for beta in solved]),
    }


def _gap(tree: Tree, log_policy: LogPolicy, log_reference: LogPolicy, beta: float) -> float:
    by_token = token_mixture(tree, log_policy, log_reference, beta)
    return float(total_variation(by_token, mixture(log_policy, log_reference, beta)))


def _stationary_gap(tree: Tree, game: Game, beta: float) -> float:
    opponent = Partial(
        token_mixture, tree, log_reference=game.log_reference, beta=jnp.asarray(beta)
    )
    by_token = stationary_point(game, opponent).log_policy
    return float(
        total_variation(by_token, stationary_point(game, against_mixture(game, beta)).log_policy)
    )
