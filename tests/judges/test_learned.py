"""T5 judges against a plain reading of their definition, and through text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.judges.learned import PreferenceAnnotator, RewardAnnotator, judge_pairs
from po_jax.judges.other_vocabulary import TranslatedAnnotator
from po_jax.judges.template import Template
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM

MODEL = T5LM(
    T5Config(
        vocab_size=30, emb_dim=8, num_heads=2, head_dim=5, mlp_dim=7,
        num_encoder_layers=1, num_decoder_layers=1,
    )
)  # fmt: skip
PAIRS = Template(pieces=((20,), (21, 22), (23,)), answers=(24, 25))
SINGLE = Template(pieces=((20,), (21,)), answers=(24, 25))
PROMPT = np.asarray([[5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 10, 1]])
COMPLETION = np.asarray([[[11, 1, 0], [12, 13, 1]], [[14, 15, 16], [1, 0, 0]], [[17, 1, 0]] * 2])
MASK = COMPLETION > 0


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(3))


def log_odds(params, inputs):
    """From the network's first decoding step on inputs composed in Python."""
    length = max(map(len, inputs))
    tokens = jnp.asarray([row + [0] * (length - len(row)) for row in inputs])
    first = jnp.zeros((len(inputs), 1), int)
    logits = jax.jit(MODEL.module.apply)({"params": params}, tokens, first)
    return np.asarray(logits[:, 0, 24] - logits[:, 0, 25])


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def plain(tokens):
    return [int(token) for token in tokens if token > 1]


def test_preferences_are_the_mean_of_both_orders(params):
    annotator = PreferenceAnnotator(MODEL, PAIRS, params)
    preference = annotator.begin(PROMPT, COMPLETION, MASK)().preference
    forward, backward = (
        log_odds(
            params,
            [
                [20, *plain(x), 21, 22, *plain(pair[i]), 23, *plain(pair[1 - i]), 1]
                for x, pair in zip(PROMPT, COMPLETION, strict=True)
            ],
        )
        for i in (0, 1)
    )
    expected = 0.5 * (sigmoid(forward) + 1.0 - sigmoid(backward))
    np.testing.assert_allclose(preference, expected, atol=1e-6)
    exchanged = annotator.begin(PROMPT, COMPLETION[:, ::-1], MASK[:, ::-1])().preference
    np.testing.assert_allclose(preference + exchanged, 1.0, atol=1e-6)
    assert preference[2] == pytest.approx(0.5, abs=1e-6)  # equal completions


def test_rewards_are_log_odds_and_preferences_their_bradley_terry(params):
    judgement = RewardAnnotator(MODEL, SINGLE, params).begin(PROMPT, COMPLETION, MASK)()
    expected = log_odds(
        params,
        [
            [20, *plain(x), 21, *plain(y), 1]
            for x, pair in zip(PROMPT, COMPLETION, strict=True)
            for y in pair
        ],
    ).reshape(3, 2)
    np.testing.assert_allclose(judgement.reward, expected, atol=1e-5)
    difference = judgement.reward[:, 0] - judgement.reward[:, 1]
    np.testing.assert_allclose(judgement.preference, sigmoid(np.asarray(difference)), atol=1e-6)


def test_judging_again_compiles_nothing(params):
    annotator = PreferenceAnnotator(MODEL, PAIRS, params)
    annotator.begin(PROMPT, COMPLETION, MASK)()
    compiled = judge_pairs._cache_size()
    annotator.begin(PROMPT + 1, COMPLETION + 1, MASK)()
    assert judge_pairs._cache_size() == compiled


def test_another_vocabulary_goes_through_text(params):
    class Letters:
        """Token t of the policy is the letter chr(t + 60)."""

        def decode(self, ids):
            return "".join(chr(60 + token) for token in ids)

        def encode(self, text):
            return [ord(letter) - 60 for letter in text]

    class Backwards(Letters):
        """The annotator's ids run the other way."""

        def encode(self, text):
            return [29 - token for token in super().encode(text)]

    def translate(rows, length):
        rows = [[*(29 - token for token in plain(row))][: length - 1] + [1] for row in rows]
        return np.asarray([row + [0] * (length - len(row)) for row in rows])

    inner = PreferenceAnnotator(MODEL, PAIRS, params)
    annotator = TranslatedAnnotator(
        inner, Letters(), Backwards(), prompt_length=3, completion_length=5
    )
    preference = annotator.begin(PROMPT, COMPLETION, MASK)().preference
    prompts = translate(PROMPT, 3)  # the third prompt is cut
    completions = np.stack([translate(pair, 5) for pair in COMPLETION])
    expected = inner.begin(prompts, completions, completions > 0)().preference
    np.testing.assert_array_equal(preference, expected)
