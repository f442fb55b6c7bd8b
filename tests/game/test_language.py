import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.game import preferences
from po_jax.game.autoregressive import all_completions
from po_jax.game.language import Player, TableJudge
from po_jax.judges import Pairs
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM

TREE = all_completions(4, 2)
MODEL = T5LM(
    T5Config(
        vocab_size=4,
        emb_dim=6,
        num_heads=2,
        head_dim=3,
        mlp_dim=5,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
)


@pytest.fixture
def players():
    prompts = jnp.array([[2, 3, 1], [3, 1, 0]], jnp.int32)
    return [Player(MODEL, prompt, TREE) for prompt in prompts]


@pytest.fixture
def params():
    with jax.enable_x64(False):
        return jax.jit(MODEL.init)(jax.random.key(0))


ACTIONS = len(TREE.tokens)
PREFERENCES = [preferences.random(seed, ACTIONS) for seed in range(2)]
REWARDS = [np.arange(ACTIONS) + 0.5, np.arange(ACTIONS) + 1.0]


@pytest.fixture
def judge(players):
    return TableJudge(players, PREFERENCES, REWARDS)


def test_the_listed_probabilities_are_all_there_are(players, params):
    with jax.enable_x64(False):
        for player in players:
            total = jnp.exp(jax.jit(player.log_policy)(params)).sum()
            np.testing.assert_allclose(total, 1.0, rtol=1e-6)


def test_players_with_different_prompts_differ(players, params):
    first, second = (player.probabilities(params) for player in players)
    assert np.abs(first - second).sum() > 0.01


def test_a_game_has_the_models_probabilities_for_its_reference(players, params):
    game = players[1].game(params, PREFERENCES[1], 0.3, REWARDS[1])
    np.testing.assert_allclose(np.exp(game.log_reference), players[1].probabilities(params))
    np.testing.assert_array_equal(game.preference, PREFERENCES[1])
    np.testing.assert_array_equal(game.reward, REWARDS[1])


def test_the_judge_gives_back_the_tables_it_was_made_of(players, judge):
    for player, preference in zip(players, PREFERENCES, strict=True):
        pairs = np.indices((ACTIONS, ACTIONS)).reshape(2, -1).T
        prompt = np.tile(player.prompt, (len(pairs), 1))
        judgement = judge.begin(
            Pairs(prompt, np.asarray(TREE.tokens)[pairs], np.asarray(TREE.mask)[pairs])
        )()
        asked = judgement.preference.reshape(ACTIONS, ACTIONS)
        np.testing.assert_allclose(asked, preference, rtol=0, atol=1e-7)


def test_the_judge_tells_padding_from_words(players, judge):
    # Token 0 is a word where the mask says so: [0, EOS] is not [EOS].
    pair = jnp.array([[[0, 1], [1, 0]]], jnp.int32)
    mask = jnp.array([[[True, True], [True, False]]])
    judgement = judge.begin(Pairs(players[1].prompt[None], pair, mask))()
    position = {
        tuple(np.asarray(words)[np.asarray(kept)].tolist()): i
        for i, (words, kept) in enumerate(zip(TREE.tokens, TREE.mask, strict=True))
    }
    first, second = position[(0, 1)], position[(1,)]
    np.testing.assert_allclose(judgement.preference, [PREFERENCES[1][first, second]], rtol=1e-6)
    np.testing.assert_allclose(judgement.reward, [[first + 1, second + 1]])


def test_the_judge_refuses_what_it_does_not_know(players, judge):
    ask = judge.begin
    pair, mask = np.array([[[2, 1], [3, 1]]]), np.ones((1, 2, 2), bool)
    with pytest.raises(ValueError, match="a prompt of its tables"):
        ask(Pairs(np.array([[2, 2, 2]]), pair, mask))()
    with pytest.raises(ValueError, match="a completion of its tables"):
        ask(Pairs(np.asarray(players[0].prompt)[None], np.array([[[1, 1], [3, 1]]]), mask))()
