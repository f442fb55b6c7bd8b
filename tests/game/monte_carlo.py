"""Gradients from the real sampler and the real T5, held against sums over all completions."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from po_jax.game.equilibrium import Game
from po_jax.game.gradients import expected_loss
from po_jax.game.language import Player, TableJudge
from po_jax.judges import Pairs
from po_jax.language_model import trained_part
from po_jax.logprobs import sequence_logprob
from po_jax.sampling import Strategy, sample
from po_jax.types import PreferenceBatch

DIRECTIONS = 6


@dataclasses.dataclass(frozen=True)
class Contest:
    """Players that face one prompt each, with the games that judge them."""

    players: list[Player]
    games: list[Game]
    policy: dict
    reference: dict

    @property
    def prompts(self):
        return jnp.stack([player.prompt for player in self.players])


def random_directions(params, seed):
    """Directions in parameter space, along which gradients are compared: [DIRECTIONS] a leaf."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(size=(DIRECTIONS, *leaf.shape)), jnp.float32),
        params,
    )


def logprob_slopes(contest, directions):
    """d log pi(y) along each direction, for every completion: [prompts, completions, DIRECTIONS].

    One backward pass through the T5 for each completion.
    """

    @jax.jit
    def of_player(player):
        _, pull = jax.vjp(player.log_policy, contest.policy)
        each = jnp.eye(len(player.tree.tokens))
        return jax.lax.map(lambda one: _along(directions, pull(one)[0]), each)

    return np.stack([np.asarray(of_player(player), np.float64) for player in contest.players])


def exact_slopes(contest, algorithm, slopes):
    """The exact gradient of the loss, averaged over the prompts, along each direction."""
    total = np.zeros(DIRECTIONS)
    for player, game, along in zip(contest.players, contest.games, slopes, strict=True):
        log_policy = jnp.log(jnp.asarray(player.probabilities(contest.policy)))
        total += np.asarray(jax.grad(expected_loss, 2)(algorithm, game, log_policy)) @ along
    return total / len(contest.players)


def sampled_slopes(contest, objective, betas, directions, *, batches, pairs, seed):
    """The slopes that each of many training batches gives: [batches, DIRECTIONS].

    A batch holds `pairs` pairs a prompt; the gradient of its mean loss is what a trainer applies.
    """
    batch = _draw(contest, betas, batches, pairs, seed)
    model, params = contest.players[0].model, contest.policy

    def loss(logprobs, batch):
        return jnp.mean(objective(logprobs, batch))

    # Cut at the log-probs of the sequences, so that all objectives share the T5's compilation.
    cotangents = jax.vmap(jax.grad(loss))(_logprobs(model, params, batch), batch)
    return np.asarray(_pull_back(model, params, batch, cotangents, directions), np.float64)


def _draw(contest, betas, batches, pairs, seed):
    """Preference batches from the sampler and the tables: leaves are [batches, rows, ...]."""
    player, prompt = contest.players[0], contest.prompts
    # With adapters, policy and reference are drawn from as in training: in one pass.
    partner = trained_part(player.model, contest.reference)
    length = player.tree.tokens.shape[1]
    rollout = sample(
        player.model,
        Strategy(max_length=length),
        contest.policy,
        partner,
        prompt,
        jnp.tile(jnp.asarray(betas, jnp.float32), (len(prompt), batches * pairs)),
        jax.random.key(seed),
    )
    # From [prompts, samples, length], a pair's samples side by side, to [rows, 2, length].
    prompts = jnp.repeat(prompt, batches * pairs, axis=0)
    rollout = jax.tree.map(lambda x: x.reshape(-1, 2, length), rollout.replace(prompt=None))
    judge = TableJudge(
        contest.players,
        [np.asarray(game.preference) for game in contest.games],
        [np.asarray(game.reward) for game in contest.games],
    )
    judgement = judge.begin(Pairs(prompts, rollout.completion, rollout.mask))()
    drawn = PreferenceBatch(
        prompt=prompts,
        completion=rollout.completion,
        mask=rollout.mask,
        preference=jnp.asarray(judgement.preference),
        reference_logprob=sequence_logprob(rollout.partner_logprob, rollout.mask),
        reward=jnp.asarray(judgement.reward),
    )

    def deal(x):
        """Every batch gets as many rows of each prompt."""
        dealt = x.reshape(len(prompt), batches, pairs, *x.shape[1:]).swapaxes(0, 1)
        return dealt.reshape(batches, len(prompt) * pairs, *x.shape[1:])

    return jax.tree.map(deal, drawn)


def _score(model, params, batch):
    logprobs = model.score(params, batch.prompt, batch.completion, batch.mask)
    return sequence_logprob(logprobs, batch.mask)


@partial(jax.jit, static_argnames="model")
def _logprobs(model, params, batches):
    return jax.lax.map(partial(_score, model, params), batches)


@partial(jax.jit, static_argnames="model")
def _pull_back(model, params, batches, cotangents, directions):
    def of_batch(piece):
        batch, cotangent = piece
        _, pull = jax.vjp(lambda params: _score(model, params, batch), params)
        return _along(directions, pull(cotangent)[0])

    return jax.lax.map(of_batch, (batches, cotangents))


def p_value(samples, expected):
    """Hotelling's test that the samples' mean is `expected`, in all directions at once."""
    count, directions = samples.shape
    error = samples.mean(axis=0) - expected
    squared = count * error @ np.linalg.solve(np.cov(samples, rowvar=False), error)
    scaled = squared * (count - directions) / (directions * (count - 1))
    return float(stats.f.sf(scaled, directions, count - directions))


def z_scores(samples, expected):
    """How many standard errors the mean lies from `expected`, direction by direction."""
    error = samples.mean(axis=0) - expected
    return error / (samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))


def _along(directions, gradient):
    slopes = jax.tree.map(lambda d, g: jnp.tensordot(d, g, axes=g.ndim), directions, gradient)
    return sum(jax.tree.leaves(slopes))
