"""What the GPO paper claims, in numbers: each study returns the arrays that a figure shows.

Tang et al., "Generalized Preference Optimization: A Unified Approach to Offline Alignment" (2024).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from po_jax.game import gaussians, preferences
from po_jax.game.algorithms import Dataset, Sampled, contrastive
from po_jax.game.dynamics import flow
from po_jax.game.equilibrium import make_game
from po_jax.losses import pairwise
from po_jax.losses.pairwise import CONVEX_FUNCTIONS

Numbers = dict[str, np.ndarray]


def functions() -> dict[str, Numbers]:
    """The six functions f of GPO: values, slopes, and |f''(0) / f'(0)|."""
    z = jnp.linspace(-5.0, 5.0, 401)
    numbers = {}
    for name, f in CONVEX_FUNCTIONS.items():
        slope = jax.grad(f)
        numbers[name] = {
            "z": np.asarray(z),
            "value": np.asarray(f(z)),
            "slope": np.asarray(jax.vmap(slope)(z)),
            "strength": np.asarray(jnp.abs(jax.grad(slope)(0.0) / slope(0.0))),
        }
    return numbers


def certain_preference(tau: float = 1.0) -> dict[str, Numbers]:
    """The margin over time when one of two completions always wins, offline, for each f."""
    game = make_game([[0.5, 1.0], [0.0, 0.5]], [0.5, 0.5], tau)
    numbers = {}
    for name, f in CONVEX_FUNCTIONS.items():
        algorithm = contrastive(partial(pairwise.gpo, f=f, tau=tau), Sampled(1.0, 1.0))
        path = flow(algorithm, game, game.log_reference, rate=0.2, steps=50_000)
        time = np.unique(np.geomspace(1, 50_000, 200).astype(int))
        margin = np.asarray(path[:, 0] - path[:, 1])
        numbers[name] = {"time": 0.2 * time, "margin": tau * margin[time]}
    return numbers


def unseen_completion(tau: float = 0.5) -> dict[str, Numbers]:
    """The probability of a bad completion that the data never shows, from a policy that likes it.

    Bradley-Terry preferences; the last of four completions loses to all others. Offline pairs
    never hold it, online pairs do whenever the policy produces it.
    """
    reward = np.array([0.3, -1.0, 1.0, -4.0])
    game = make_game(preferences.bradley_terry(reward), [0.4, 0.3, 0.25, 0.05], tau, reward)
    start = jnp.log(jnp.array([0.2, 0.15, 0.15, 0.5]))
    seen = Dataset((0.4, 0.3, 0.3, 0.0))
    numbers = {}
    for name, loss in (("DPO", pairwise.dpo), ("IPO", pairwise.ipo)):
        for place, plan in (("offline", seen), ("online", Sampled())):
            algorithm = contrastive(partial(loss, tau=tau), plan)
            path = flow(algorithm, game, start, rate=0.02, steps=20_000)
            time = np.unique(np.geomspace(1, 20_000, 200).astype(int))
            probability = np.exp(np.asarray(path))[time, -1]
            numbers[f"{place} {name}"] = {"time": 0.02 * time, "probability": probability}
    solution = jax.nn.softmax(game.log_reference + game.reward / tau)
    numbers["RLHF solution"] = {"probability": np.asarray(solution)[-1:]}
    return numbers


def gaussian_regularisers() -> dict[str, Numbers]:
    """Paths of the two regularisers in the plane of the two means, and the KL along them."""
    game = gaussians.indifferent_game()
    numbers = {}
    axis = np.linspace(-5.0, 6.0, 56)
    plane = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2))
    field = jax.lax.map(partial(gaussians.divergence, game), plane)
    numbers["plane"] = {"axis": axis, "kl": np.asarray(field).reshape(len(axis), len(axis))}
    for start in ((1.0, 2.5), (0.5, 5.0), (-4.5, -1.0)):
        for name, algorithm in (("online", gaussians.ONLINE), ("offline", gaussians.OFFLINE)):
            path = gaussians.descend(algorithm, game, jnp.array(start), rate=0.02, steps=600)
            divergence = jax.vmap(partial(gaussians.divergence, game))(path)
            numbers[f"{name} from {start}"] = {
                "path": np.asarray(path),
                "kl": np.asarray(divergence),
            }
    return numbers
