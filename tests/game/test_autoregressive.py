from functools import partial
import itertools

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
import numpy as np
import pytest

from po_jax.game import preferences
from po_jax.game.algorithms import ipo_md
from po_jax.game.autoregressive import (
    all_completions,
    completion_logprobs,
    next_token_logprobs,
    softmax_policy,
    token_mixture,
)
from po_jax.game.equilibrium import (
    against_mixture,
    make_game,
    mixture,
    stationary_point,
    total_variation,
)
from po_jax.game.gradients import expected_gradient

VOCABULARY, LENGTH = 4, 3
TREE = all_completions(VOCABULARY, LENGTH)


def random_policy(seed, tree=TREE):
    logits = np.random.default_rng(seed).normal(size=(len(tree.parent), VOCABULARY))
    return jnp.asarray(logits)


def test_all_completions_are_there_once():
    # Three words that are not EOS: 1 + 3 + 9 that end with it, and 27 cut off.
    assert TREE.tokens.shape == (1 + 3 + 9 + 27, LENGTH)
    length = np.asarray(TREE.mask).sum(axis=1)
    listed = {
        tuple(words[:n].tolist()) for words, n in zip(np.asarray(TREE.tokens), length, strict=True)
    }
    expected = set()
    for words in itertools.product(range(VOCABULARY), repeat=LENGTH):
        end = words.index(1) + 1 if 1 in words else LENGTH
        expected.add(words[:end])
    assert listed == expected and len(listed) == len(TREE.tokens)


def test_a_policy_by_prefix_multiplies_its_conditionals():
    logits = random_policy(0)
    log_policy = softmax_policy(TREE, logits)
    np.testing.assert_allclose(jnp.exp(log_policy).sum(), 1.0, rtol=1e-14)
    conditional = jax.nn.log_softmax(logits)
    prefixes = {}  # prefix number by its tokens, from the parents alone
    for number, (parent, token) in enumerate(zip(TREE.parent, TREE.token, strict=True)):
        start = next((p for p, n in prefixes.items() if n == parent), ())
        prefixes[(*start, int(token)) if number else ()] = number
    for words, mask, actual in zip(TREE.tokens, TREE.mask, log_policy, strict=True):
        words = tuple(np.asarray(words)[np.asarray(mask)].tolist())
        steps = [conditional[prefixes[words[:i]], word] for i, word in enumerate(words)]
        np.testing.assert_allclose(actual, sum(steps), rtol=1e-13)


def test_conditionals_of_a_distribution_over_completions_multiply_back_to_it():
    generator = np.random.default_rng(3)
    log_policy = jnp.log(jnp.asarray(generator.dirichlet(np.ones(len(TREE.tokens)))))
    back = completion_logprobs(TREE, next_token_logprobs(TREE, log_policy))
    np.testing.assert_allclose(back, log_policy, rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.125, 0.5, 1.0])
def test_the_token_mixture_mixes_the_logits_after_each_prefix(beta):
    policy, reference = random_policy(0), random_policy(1)
    expected = softmax_policy(TREE, (1.0 - beta) * policy + beta * reference)
    actual = token_mixture(
        TREE, softmax_policy(TREE, policy), softmax_policy(TREE, reference), beta
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def mixtures(policy, reference, beta):
    log_policy, log_reference = softmax_policy(TREE, policy), softmax_policy(TREE, reference)
    return (
        token_mixture(TREE, log_policy, log_reference, beta),
        mixture(log_policy, log_reference, beta),
    )


@pytest.mark.parametrize("beta", [0.125, 0.5])
def test_the_two_mixtures_differ(beta):
    distance = total_variation(*mixtures(random_policy(0), random_policy(1), beta))
    assert 0.02 < distance < 0.3


def test_they_agree_where_the_future_forgets_the_past():
    # EOS has no mass before the end and the logits do not depend on the prefix: then the
    # normaliser of the rest of a completion is a constant.
    row = jnp.array([0.3, -1e3, 1.0, -0.5])
    other = jnp.array([-0.2, -1e3, 0.1, 0.9])
    shape = (len(TREE.parent), VOCABULARY)
    both = mixtures(jnp.broadcast_to(row, shape), jnp.broadcast_to(other, shape), 0.5)
    assert total_variation(*both) < 1e-14


def test_where_the_policy_is_the_reference_they_agree():
    both = mixtures(random_policy(0), random_policy(0), 0.5)
    assert total_variation(*both) < 1e-14


def test_the_stationary_point_of_the_sampler_is_near_that_of_the_theory_not_at_it():
    log_reference = softmax_policy(TREE, random_policy(1))
    reference = np.exp(log_reference)
    actions = len(TREE.tokens)
    game = make_game(preferences.random(0, actions), reference / reference.sum(), 0.1)
    opponent = Partial(token_mixture, TREE, log_reference=game.log_reference, beta=jnp.asarray(0.5))
    sampled = stationary_point(game, opponent).log_policy
    exact = stationary_point(game, against_mixture(game, 0.5)).log_policy
    assert 1e-4 < total_variation(sampled, exact) < 0.02
    algorithm = ipo_md(0.1, 0.5, partial(token_mixture, TREE))
    policy_logits = sampled  # a softmax over whole completions
    assert jnp.abs(expected_gradient(algorithm, game, policy_logits)).max() < 1e-13
    assert jnp.abs(expected_gradient(ipo_md(0.1, 0.5), game, policy_logits)).max() > 1e-5
