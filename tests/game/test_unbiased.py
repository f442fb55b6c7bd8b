"""Every estimator used in training, with the real sampler and real networks, has the exact mean.

Each test asks whether the mean of 200 batches' gradients is the sum over all completions, in six
random directions at once. The seeds are fixed, so a test either always passes or never does; a
correct estimator would fail one seed in a thousand.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import algorithms, preferences
from po_jax.game.autoregressive import all_completions, token_mixture
from po_jax.game.language import Player
from po_jax.language_model import SpecialIds
from po_jax.lora import LoRA
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.t5gemma.config import StackConfig, T5Gemma2Config, T5GemmaConfig
from po_jax.t5gemma.language_model import T5GemmaLM
from tests.game.monte_carlo import (
    Contest,
    exact_slopes,
    logprob_slopes,
    p_value,
    random_directions,
    sampled_slopes,
    z_scores,
)

TAU, BETA, SIGNIFICANCE = 0.2, 0.5, 1e-3
VOCABULARY, LENGTH = 5, 3
SAMPLES = {"batches": 200, "pairs": 32, "seed": 11}
TREE = all_completions(VOCABULARY, LENGTH)
BY_TOKEN = partial(token_mixture, TREE)


STACK = StackConfig(
    emb_dim=8,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=11,
    num_layers=1,
    query_scalar=3,
    sliding_window=2,
)
MODELS = {
    "t5": T5LM(
        T5Config(
            vocab_size=VOCABULARY,
            emb_dim=8,
            num_heads=2,
            head_dim=3,
            mlp_dim=11,
            num_encoder_layers=1,
            num_decoder_layers=1,
        )
    ),
    "t5gemma": T5GemmaLM(
        T5GemmaConfig(VOCABULARY, dataclasses.replace(STACK, emb_dim=6), STACK),
        special_ids=SpecialIds(pad=0, eos=1, start=2),
    ),
}
MODELS["t5gemma2"] = T5GemmaLM(
    T5Gemma2Config(VOCABULARY, *[dataclasses.replace(STACK, attention_softcap=None)] * 2),
    special_ids=MODELS["t5gemma"].special_ids,
)
MODELS["lora"] = LoRA(MODELS["t5"], rank=4, alpha=8.0, targets=".*")
MODELS["lora_t5gemma"] = LoRA(MODELS["t5gemma"], rank=4, alpha=8.0, targets=".*")
# How far a policy is from the reference: enough for a gradient that its standard errors are small
# beside, but not so far that the reference's completions are never drawn.
SHARES = {"t5": 0.4, "t5gemma": 0.7, "t5gemma2": 0.7, "lora": 1.0, "lora_t5gemma": 0.9}


def adapters(model, seeds):
    """Parameters of one base whose adapters have been somewhere."""
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params["adapter"])
    for seed in seeds:
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        moved = [
            x + 0.3 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)
        ]
        yield {**params, "adapter": structure.unflatten(moved)}


@pytest.fixture(scope="module")
def contest(request):
    """Between policies of a T5, if no other model is asked for."""
    name = getattr(request, "param", "t5")
    model, share = MODELS[name], SHARES[name]
    with jax.enable_x64(False):
        if isinstance(model, LoRA):
            reference, other = adapters(model, (1, 2))
        else:
            reference, other = (jax.jit(model.init)(jax.random.key(seed)) for seed in (0, 1))
        policy = jax.tree.map(lambda r, o: (1 - share) * r + share * o, reference, other)
    prompts = jnp.array([[3, 4, 1, 0], [2, 2, 3, 1]], jnp.int32)
    players = [Player(model, prompt, TREE) for prompt in prompts]
    actions = len(TREE.tokens)
    with jax.enable_x64(True):
        games = [
            player.game(
                reference,
                preferences.random(seed, actions),
                TAU,
                reward=np.random.default_rng(seed).normal(size=actions),
            )
            for seed, player in enumerate(players)
        ]
    return Contest(players, games, policy, reference)


@pytest.fixture(scope="module")
def directions(contest):
    with jax.enable_x64(False):
        return random_directions(contest.policy, seed=5)


@pytest.fixture(scope="module")
def slopes(contest, directions):
    with jax.enable_x64(False):
        return logprob_slopes(contest, directions)


ESTIMATORS = {
    "online_ipo": (algorithms.ipo_md(TAU, 0.0, BY_TOKEN), (0.0, 0.0)),
    "ipo_md": (algorithms.ipo_md(TAU, BETA, BY_TOKEN), (BETA, BETA)),
    "online_dpo": (algorithms.online_dpo(TAU), (0.0, 0.0)),
    "nash_md_pg": (algorithms.nash_md_pg(TAU, BETA, BY_TOKEN), (0.0, BETA)),
    "rlhf": (algorithms.rlhf(TAU), (0.0, 0.0)),
}


CASES = [("t5", name) for name in ESTIMATORS] + [
    (model, name)
    if (model, name) == ("t5gemma", "ipo_md")
    else pytest.param(model, name, marks=pytest.mark.slow)
    for model in ("t5gemma", "t5gemma2", "lora", "lora_t5gemma")
    for name in ESTIMATORS
]


@pytest.mark.parametrize(("contest", "name"), CASES, indirect=["contest"])
def test_the_mean_of_sampled_gradients_is_the_exact_gradient(contest, directions, slopes, name):
    algorithm, betas = ESTIMATORS[name]
    expected = exact_slopes(contest, algorithm, slopes)
    with jax.enable_x64(False):
        sampled = sampled_slopes(contest, algorithm.objective, betas, directions, **SAMPLES)
    probability = p_value(sampled, expected)
    assert probability > SIGNIFICANCE, f"z = {z_scores(sampled, expected)}"
    # The test could have failed: the standard errors are small beside the gradient.
    error = sampled.std(axis=0) / np.sqrt(len(sampled))
    assert np.linalg.norm(error) < 0.15 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "mistake, betas",
    [("the weight of the other model", (0.3, 0.3)), ("no mixture at all", (0.0, 0.0))],
)
def test_a_sampler_with_the_wrong_beta_is_caught(contest, directions, slopes, mistake, betas):
    algorithm = algorithms.ipo_md(TAU, 0.7, BY_TOKEN)
    with jax.enable_x64(False):
        sampled = sampled_slopes(contest, algorithm.objective, betas, directions, **SAMPLES)
    assert p_value(sampled, exact_slopes(contest, algorithm, slopes)) < 1e-9, mistake


def test_swapped_labels_are_caught(contest, directions, slopes):
    algorithm, betas = ESTIMATORS["online_ipo"]

    def swapped(policy, batch):
        return algorithm.objective(policy, batch.replace(preference=1.0 - batch.preference))

    with jax.enable_x64(False):
        sampled = sampled_slopes(contest, swapped, betas, directions, **SAMPLES)
    assert p_value(sampled, exact_slopes(contest, algorithm, slopes)) < 1e-9
