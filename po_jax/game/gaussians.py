"""Two regularisers on a mixture of Gaussians (Tang et al., 2024).

Completions are points of a line, cut into cells; mu is an even mixture of two Gaussians and the
policy another, whose two means are the parameters. With no preference at all, P = 1/2, IPO is its
regulariser: the squared margin. Online that is the KL; offline it is weighted by mu.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from po_jax.game.algorithms import Algorithm, ipo_md
from po_jax.game.equilibrium import Game, LogPolicy, kl, make_game
from po_jax.game.gradients import expected_gradient

Means = Float[Array, " components"]

CELLS = np.linspace(-8.0, 8.0, 61)
WIDTH = 0.7
REFERENCE = (-2.0, 2.0)
# IPO's squared margin, whatever tau is: without preferences its targets cancel.
ONLINE, OFFLINE = ipo_md(1.0, 0.0), ipo_md(1.0, 1.0)


def mixture_policy(means: Means) -> LogPolicy:
    """log P of each cell under an even mixture of Gaussians of one width."""
    squares = jnp.square((jnp.asarray(CELLS)[:, None] - means[None, :]) / WIDTH)
    return jax.nn.log_softmax(jax.nn.logsumexp(-0.5 * squares, axis=-1))


def indifferent_game() -> Game:
    """The game whose only content is its reference: every preference is 1/2."""
    reference = np.exp(np.asarray(mixture_policy(jnp.asarray(REFERENCE))))
    preference = np.full((len(CELLS), len(CELLS)), 0.5)
    return make_game(preference, reference / reference.sum(), tau=1.0)


def divergence(game: Game, means: Means) -> Array:
    """KL(policy || reference)."""
    return kl(mixture_policy(means), game.log_reference)


@partial(jax.jit, static_argnames=("algorithm", "steps"))
def descend(
    algorithm: Algorithm, game: Game, means: Means, *, rate: float | Array, steps: int
) -> Float[Array, "times components"]:
    """Follows the negative gradient in the means, at a speed of at most 1 cell unit."""

    def step(means: Means, _) -> tuple[Means, Means]:
        gradient = expected_gradient(algorithm, game, means, mixture_policy)
        means = means - rate * gradient / jnp.maximum(1.0, jnp.linalg.norm(gradient))
        return means, means

    _, path = jax.lax.scan(step, means, length=steps)
    return jnp.concatenate([means[None], path])
