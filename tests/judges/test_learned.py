"""T5 judges against a plain reading of their definition, on one device and on a mesh."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.judges import (
    LearnedJudge,
    Pairs,
    PreferenceModel,
    RewardModel,
    ask,
    learned,
    trained_judge,
)
from po_jax.judges.models import prefer
from po_jax.judges.template import Template
from po_jax.partitioning import make_partitioner
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM

MODEL = T5LM(
    T5Config(
        vocab_size=30,
        emb_dim=8,
        num_heads=2,
        head_dim=5,
        mlp_dim=8,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
)
PREFERENCE = PreferenceModel(
    language_model=MODEL, template=Template(((20,), (21, 22), (23,)), verdicts=(24, 25))
)
REWARD = RewardModel(language_model=MODEL, template=Template(((20,), (21,)), verdicts=(24, 25)))
# Their decoders read the completions.
DECODED = [
    dataclasses.replace(model, template=dataclasses.replace(model.template, decoded=True))
    for model in (PREFERENCE, REWARD)
]
PROMPT = np.asarray([[5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 10, 1]])
COMPLETION = np.asarray([[[11, 1, 0], [12, 13, 1]], [[14, 15, 16], [1, 0, 0]], [[17, 1, 0]] * 2])
PAIRS = Pairs(PROMPT, COMPLETION, COMPLETION > 0)


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(3))


def judge_of(model, params, num_partitions=1, devices=1):
    """The judge on a mesh of so many devices, its parameters sharded as the rules say."""
    partitioner = make_partitioner(num_partitions, devices=jax.devices()[:devices])
    shardings = partitioner.shardings(params, MODEL.parameter_axes())
    return LearnedJudge(model, jax.device_put(params, shardings), partitioner)


def log_odds(params, inputs):
    """From the network's first decoding step on inputs composed in Python."""
    length = max(map(len, inputs))
    tokens = jnp.asarray([row + [0] * (length - len(row)) for row in inputs])
    first = jnp.zeros((len(inputs), 1), int)
    logits = jax.jit(MODEL.module.apply)({"params": params}, tokens, first)
    return np.asarray(logits[:, 0, 24] - logits[:, 0, 25])


def after(params, inputs, targets):
    """From the network's logits after targets that are read one row at a time, without padding."""
    apply, found = jax.jit(MODEL.module.apply), []
    for read, target in zip(inputs, targets, strict=True):
        given = jnp.asarray([read]), jnp.asarray([[0, *target]])
        logits = apply({"params": params}, *given)[0, -1]
        found.append(logits[24] - logits[25])
    return np.asarray(found)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def plain(tokens):
    return [int(token) for token in tokens if token > 1]


def test_preferences_are_the_mean_of_both_orders(params):
    judge = judge_of(PREFERENCE, params)
    preference = np.asarray(judge.begin(PAIRS)().preference)
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
    exchanged = judge.begin(PAIRS.exchanged())().preference
    np.testing.assert_allclose(preference + exchanged, 1.0, atol=1e-6)
    assert preference[2] == pytest.approx(0.5, abs=1e-6)  # equal completions


def test_rewards_are_log_odds_and_preferences_their_bradley_terry(params):
    judgement = judge_of(REWARD, params).begin(PAIRS)()
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


def test_a_decoder_that_reads_the_completions_answers_after_them(params):
    preference, reward = (judge_of(model, params).begin(PAIRS)() for model in DECODED)
    texts = [[20, *plain(x), 1] for x in PROMPT]
    forward, backward = (
        after(
            params,
            texts,
            [[21, 22, *plain(pair[i]), 23, *plain(pair[1 - i]), 1] for pair in COMPLETION],
        )
        for i in (0, 1)
    )
    expected = 0.5 * (sigmoid(forward) + 1.0 - sigmoid(backward))
    np.testing.assert_allclose(preference.preference, expected, atol=1e-6)
    assert np.ptp(expected) > 1e-4
    twice = [text for text in texts for _ in range(2)]
    answers = [[21, *plain(y), 1] for pair in COMPLETION for y in pair]
    rewards = after(params, twice, answers).reshape(3, 2)
    np.testing.assert_allclose(reward.reward, rewards, atol=1e-5)
    # A prompt's tokens are read once, and so is each completion.
    tokens = [
        len(text) + len(a) + len(b)
        for text, a, b in zip(texts, answers[::2], answers[1::2], strict=True)
    ]
    positions = (1 + 4 + 1) + 2 * (1 + 3 + 1)
    assert reward.read.tolist() == [[count, positions] for count in tokens]


def test_judging_again_compiles_nothing(params):
    judge = judge_of(PREFERENCE, params)
    judge.begin(PAIRS)()
    compiled = prefer._cache_size()
    assert compiled > 0
    judge.begin(Pairs(PROMPT + 1, COMPLETION + 1, COMPLETION > 0))()
    assert prefer._cache_size() == compiled


@pytest.mark.parametrize(
    "model",
    [PREFERENCE, REWARD, *DECODED],
    ids=["preference", "reward", "preference, decoded", "reward, decoded"],
)
def test_a_mesh_of_eight_devices_judges_as_one_does(model, params):
    rows = [0, 1, 2, 1]
    pairs = Pairs(PROMPT[rows], COMPLETION[rows], COMPLETION[rows] > 0)
    one = judge_of(model, params).begin(pairs)()
    many = judge_of(model, params, num_partitions=2, devices=8).begin(pairs)()
    assert len(many.preference.sharding.device_set) == 8
    np.testing.assert_allclose(many.preference, one.preference, atol=1e-5)
    if isinstance(model, RewardModel):
        np.testing.assert_allclose(many.reward, one.reward, atol=1e-5)


def test_rows_of_the_host_and_of_the_devices_are_judged_alike(params):
    rows = [0, 1, 2, 1]
    judge = judge_of(PREFERENCE, params, num_partitions=2, devices=8)
    on_host = Pairs(PROMPT[rows], COMPLETION[rows], COMPLETION[rows] > 0)
    on_devices = Pairs(
        *judge.partitioner.distribute((on_host.prompt, on_host.completion, on_host.mask))
    )
    first, second = (judge.begin(pairs)().preference for pairs in (on_host, on_devices))
    np.testing.assert_array_equal(first, second)


RULES = []  # those in force each time that `Watched` is traced


class Watched(T5LM):
    """Tells which rules a program is traced under."""

    def next_token_logits(self, *args, **options):
        RULES.append(tuple(nn.get_logical_axis_rules()))
        return super().next_token_logits(*args, **options)


@pytest.mark.parametrize("of", [PREFERENCE, REWARD], ids=["preference", "reward"])
def test_the_judge_takes_its_own_mesh_into_force(of, params):
    assert not nn.get_logical_axis_rules()
    model = type(of)(language_model=Watched(MODEL.config), template=of.template)
    judge = judge_of(model, params, num_partitions=2, devices=2)
    RULES.clear()
    judge.begin(PAIRS)()
    assert RULES == [judge.partitioner.rules]
    assert not nn.get_logical_axis_rules()


def test_neither_kind_has_an_order(params):
    for model, name in (
        (PREFERENCE, "a trained preference model"),
        (REWARD, "a trained reward model"),
    ):
        judge = judge_of(model, params)
        assert judge.antisymmetric and judge.name == name
        assert ask(judge, PAIRS)().by_order is None


def test_a_judge_needs_a_checkpoint():
    partitioner = make_partitioner()
    with pytest.raises(ValueError, match="JUDGE_CHECKPOINT_PATH .* a trained reward model .* None"):
        trained_judge(REWARD, None, partitioner)
    with pytest.raises(ValueError, match="nowhere: expected .*, got no such path"):
        trained_judge(REWARD, "nowhere", partitioner)


def test_a_judge_says_how_much_of_what_it_read_was_padding(params):
    """Counted in Python; among many rows, groups of short ones are cut shorter."""
    for model, fields in ((PREFERENCE, 4 + 1), (REWARD, 2 + 1)):
        read = np.asarray(judge_of(model, params).begin(PAIRS)().read)
        lengths = [[len(plain(y)) for y in pair] for pair in COMPLETION]
        for row, x, (first, second) in zip(read, PROMPT, lengths, strict=True):
            # Both read the prompt twice, in two orders or with each completion, and EOS.
            words = 2 * (len(plain(x)) + fields) + (first + second) * (1 + (model is PREFERENCE))
            assert row[0] == words
        assert (read[:, 1] == 2 * (4 + fields + 3 * (1 + (model is PREFERENCE)))).all()


def test_the_positions_that_a_judge_read_are_those_of_its_groups(params):
    used = np.repeat([20, 200], 32)
    prompt = np.where(np.arange(512) < used[:, None], 5, 0)
    completion = np.full((64, 2, 3), 7)
    judge = judge_of(PREFERENCE, params)
    read = np.asarray(judge.begin(Pairs(prompt, completion, completion > 0))().read)
    # Prompts are cut to 256, and 11 more are 267: a quarter of them, rounded up to 16s, holds 31,
    # three quarters, 208, not 211.
    np.testing.assert_array_equal(read[:, 1], 2 * np.repeat([80, 267], 32))
    np.testing.assert_array_equal(read[:, 0], 2 * (used + 4 + 6 + 1))


def test_a_judge_of_a_checkpoint_is_kept_as_it_is_read(params, monkeypatch):
    config = dataclasses.replace(MODEL.config, dtype="bfloat16")
    model = PreferenceModel(language_model=T5LM(config), template=PREFERENCE.template)
    monkeypatch.setattr(learned, "load_parameters", lambda *_, **__: params)
    partitioner = make_partitioner(devices=jax.devices()[:1])
    judge = trained_judge(model, "there", partitioner)
    kept = {str(leaf.dtype) for leaf in jax.tree.leaves(judge.params)}
    assert kept == {"bfloat16", "float32"}
    wide = LearnedJudge(model, params, partitioner)
    answers = [np.asarray(one.begin(PAIRS)().preference) for one in (judge, wide)]
    np.testing.assert_array_equal(*answers)
    assert np.ptp(answers[0]) > 1e-4
