"""The sampler against exact enumeration, teacher forcing, T5X's decodes and NumPy."""

import dataclasses
import functools
import itertools
import math
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from po_jax.language_model import LanguageModel, SpecialIds
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Sampler, Strategy, sample
from po_jax.sampling.strategy import choose
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.t5gemma.config import StackConfig, T5Gemma2Config, T5GemmaConfig
from po_jax.t5gemma.language_model import T5GemmaLM
from tests.t5.test_network import VERSIONS, golden_config, load_tree, packing, scanned

EOS, VOCAB, LENGTH = 1, 5, 3
TINY = T5LM(
    T5Config(
        vocab_size=VOCAB,
        emb_dim=8,
        num_heads=2,
        head_dim=3,
        mlp_dim=7,
        num_encoder_layers=1,
        num_decoder_layers=2,
        mlp_activations=("gelu", "linear"),
    )
)
STACK = StackConfig(
    emb_dim=8,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=7,
    num_layers=2,
    query_scalar=3,
    sliding_window=2,
)
FAMILIES = {
    "t5": TINY,
    "t5gemma": T5GemmaLM(
        T5GemmaConfig(VOCAB, dataclasses.replace(STACK, emb_dim=6), STACK),
        special_ids=SpecialIds(pad=0, eos=EOS, start=2),
    ),
    "t5gemma2": T5GemmaLM(
        T5Gemma2Config(VOCAB, *[dataclasses.replace(STACK, attention_softcap=None)] * 2),
        special_ids=SpecialIds(pad=0, eos=EOS, start=2),
    ),
}
PROMPT = jnp.array([[2, 3, 4, 2, 0, 0], [3, 3, 2, 4, 4, 2]], jnp.int32)


def sharp_policies(model):
    """pi and mu, sharpened so that they differ and end at different lengths."""
    init = jax.jit(model.init)
    sharpen = functools.partial(jax.tree.map, lambda p: 1.5 * p)
    return sharpen(init(jax.random.key(3))), sharpen(init(jax.random.key(4)))


@pytest.fixture(scope="module")
def policies():
    return sharp_policies(TINY)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A model, and its policies."""
    model = FAMILIES[request.param]
    return model, sharp_policies(model)


def completions():
    """Every completion of at most LENGTH tokens: ended by EOS, or cut off."""
    others = [token for token in range(VOCAB) if token != EOS]
    for length in range(LENGTH):
        for body in itertools.product(others, repeat=length):
            yield (*body, EOS)
    yield from itertools.product(others, repeat=LENGTH)


ALL = list(completions())
TOKENS = np.array([y + (0,) * (LENGTH - len(y)) for y in ALL], np.int32)
MASK = np.array([[t < len(y) for t in range(LENGTH)] for y in ALL])


def exact(model, params, prompt):
    """[batch, completions, LENGTH, VOCAB] next-token log-probs along every completion."""
    start = model.special_ids.start
    inputs = np.pad(TOKENS, ((0, 0), (1, 0)), constant_values=start)[:, :-1]

    @jax.jit
    def run(params):
        rows = jnp.tile(jnp.asarray(inputs), (prompt.shape[0], 1))
        logits = model.logits(params, jnp.repeat(prompt, len(inputs), axis=0), rows)
        return jax.nn.log_softmax(logits).reshape(prompt.shape[0], *inputs.shape, VOCAB)

    return np.asarray(run(params), np.float64)


def test_the_token_after_a_completion_is_that_of_teacher_forcing(family):
    """After no token, one and two; the prompts are encoded once for all completions."""
    model, (params, _) = family
    ends = np.arange(len(ALL)) % LENGTH
    mask = np.arange(LENGTH - 1) < ends[:, None]
    begun, mask = (
        jnp.broadcast_to(jnp.asarray(rows), (len(PROMPT), *rows.shape))
        for rows in (np.where(mask, TOKENS[:, :-1], 0), mask)
    )
    logits = jax.jit(model.next_token_logits)(params, PROMPT, begun, mask)
    expected = exact(model, params, PROMPT)[:, np.arange(len(ALL)), ends]
    np.testing.assert_allclose(jax.nn.log_softmax(logits), expected, atol=1e-5)


def mixture(policy, reference, beta):
    """Log-probability of every completion, [batch, completions], under the token-wise mixture."""
    mixed = (1 - beta) * policy + beta * reference
    mixed = mixed - np.log(np.sum(np.exp(mixed), axis=-1, keepdims=True))
    tokens = np.broadcast_to(TOKENS, (*mixed.shape[:1], *TOKENS.shape))[..., None]
    return np.sum(np.take_along_axis(mixed, tokens, -1)[..., 0] * MASK, axis=-1)


def test_frequencies_are_those_of_the_mixture(family):
    """Two prompts, one padded; a third of the rows each at beta 0, 0.3 and 1, side by side.

    Chi-square over all 85 completions (those expected less than 5 times pooled), 2 x 3 tests:
    each must have p > 0.001. The key is fixed, so a passing run stays one.
    """
    model, policies = family
    betas, draws = (0.0, 0.3, 1.0), 3000
    beta = jnp.tile(jnp.array(betas, jnp.float32), (2, draws))
    rollout = sample(model, Strategy(LENGTH), *policies, PROMPT, beta, jax.random.key(7))
    log_pi, log_mu = (exact(model, params, PROMPT) for params in policies)
    index = {y: i for i, y in enumerate(ALL)}
    for row, column in itertools.product(range(2), range(3)):
        tokens = np.asarray(rollout.completion[row, column::3])
        mask = np.asarray(rollout.mask[row, column::3])
        counts = np.zeros(len(ALL))
        for completion, real in zip(tokens, mask, strict=True):
            counts[index[tuple(completion[real].tolist())]] += 1
        probability = np.exp(mixture(log_pi, log_mu, betas[column])[row])
        assert probability.sum() == pytest.approx(1.0, abs=1e-5)
        expected = draws * probability / probability.sum()
        rare = expected < 5
        observed = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        assert stats.chisquare(observed, expected).pvalue > 1e-3, (row, betas[column])
        # The test has power: the other policies' frequencies are refuted.
        wrong = np.exp(mixture(log_pi, log_mu, betas[column - 1])[row])
        wrong = draws * np.append(wrong[~rare], wrong[rare].sum()) / wrong.sum()
        assert stats.chisquare(observed, wrong).pvalue < 1e-6


def test_log_probabilities_are_teacher_forced_ones(family):
    model, policies = family
    beta = jnp.array([[0.0, 0.3, 1.0], [0.6, 0.6, 0.0]], jnp.float32)
    rollout = sample(model, Strategy(LENGTH), *policies, PROMPT, beta, jax.random.key(1))
    score = jax.jit(model.score)
    log_pi = score(policies[0], PROMPT, rollout.completion, rollout.mask)
    log_mu = score(policies[1], PROMPT, rollout.completion, rollout.mask)
    np.testing.assert_allclose(rollout.policy_logprob, log_pi, atol=1e-5)
    np.testing.assert_allclose(rollout.partner_logprob, log_mu, atol=1e-5)
    exact_pi, exact_mu = (exact(model, params, PROMPT) for params in policies)
    index = {y: i for i, y in enumerate(ALL)}
    for row, column in itertools.product(range(2), range(3)):
        tokens, mask = rollout.completion[row, column], rollout.mask[row, column]
        y = index[tuple(np.asarray(tokens)[np.asarray(mask)].tolist())]
        wanted = mixture(exact_pi, exact_mu, float(beta[row, column]))[row, y]
        assert float(rollout.behaviour_logprob[row, column].sum()) == pytest.approx(
            wanted, abs=1e-5
        )


def test_masks_end_with_eos_and_padding_is_zero(policies):
    beta = jnp.full((2, 7), 0.5)
    rollout = jax.device_get(
        sample(TINY, Strategy(LENGTH), *policies, PROMPT, beta, jax.random.key(2))
    )
    ended = rollout.completion == EOS
    before = np.cumsum(ended & rollout.mask, axis=-1) - ended
    np.testing.assert_array_equal(rollout.mask, before == 0)
    assert 0 < ended.sum() < 14  # Some rows ended and some were cut off.
    for values in dataclasses.astuple(rollout.replace(prompt=rollout.mask)):
        assert np.all(values[~rollout.mask] == 0)


def test_rows_do_not_influence_each_other_and_padding_does_not_matter(policies):
    beta = jnp.array([[0.0, 0.3], [0.7, 1.0]], jnp.float32)
    draw = functools.partial(sample, TINY, Strategy(LENGTH), *policies)
    rollout = draw(PROMPT, beta, jax.random.key(5))
    padded = jnp.pad(PROMPT, ((0, 0), (0, 3)))
    other_prompt = padded.at[1, :3].set(jnp.array([4, 4, 4], jnp.int32))
    changed = draw(other_prompt, beta.at[1].set(0.2), jax.random.key(5))
    drawn = (dataclasses.astuple(x.replace(prompt=x.mask)) for x in (rollout, changed))
    for before, after in zip(*drawn, strict=True):
        np.testing.assert_allclose(before[0], after[0], atol=1e-5)
    assert not np.array_equal(rollout.behaviour_logprob[1], changed.behaviour_logprob[1])


def test_without_a_reference_only_the_policy_runs(policies):
    beta = jnp.zeros((2, 3))
    args = (PROMPT, beta, jax.random.key(6))
    both = sample(TINY, Strategy(LENGTH), *policies, *args)
    alone = sample(TINY, Strategy(LENGTH), policies[0], None, *args)
    np.testing.assert_array_equal(alone.completion, both.completion)
    assert alone.partner_logprob is None

    def products(reference):
        text = sample.lower(TINY, Strategy(LENGTH), policies[0], reference, *args).as_text()
        return text.count("dot_general")

    assert products(policies[1]) == 2 * products(None)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_greedy_decodes_are_those_of_t5x(golden, version, scan):
    expected = np.load(golden / version / "decodes.npz")
    params = load_tree(golden / version / "params.npz")
    model = T5LM(golden_config(golden, version))
    if scan:
        module, params = scanned(golden, version, params)
        model = T5LM(module.config)
    prompt = jnp.asarray(packing(golden, "padded")["encoder_input_tokens"])
    beta = jnp.zeros((prompt.shape[0], 1))
    for tag, length in (("greedy_topk1", 12), ("greedy_max_steps4", 4)):
        strategy = Strategy(length, temperature=0.0)
        rollout = sample(model, strategy, params, None, prompt, beta, jax.random.key(0))
        wanted = expected[f"{tag}:decodes"]
        np.testing.assert_array_equal(rollout.completion[:, 0], wanted[:, :length])
        np.testing.assert_array_equal(rollout.behaviour_logprob, 0.0)
        if length == 12:
            scores = rollout.policy_logprob.sum(axis=(1, 2))
            raw = expected["greedy_topk1_raw_scores:scores"]
            np.testing.assert_allclose(scores, raw, atol=1e-4)


@pytest.mark.parametrize(
    ("num_partitions", "dims"), [(1, (1, 1)), (4, (1, 1)), (2, (1, 1)), (2, (1, 2)), (2, (2, 2))]
)
def test_a_mesh_draws_what_one_device_draws(policies, num_partitions, dims):
    prompt = jnp.tile(PROMPT, (4, 1))
    beta = jnp.tile(jnp.array([[0.0, 0.3, 1.0]], jnp.float32), (8, 1))
    args = (TINY, Strategy(LENGTH))
    alone = sample(*args, *policies, prompt, beta, jax.random.key(8))
    partitioner = make_partitioner(num_partitions, *dims)
    shardings = partitioner.shardings(policies[0], TINY.parameter_axes())
    pi, mu = (jax.device_put(params, shardings) for params in policies)
    rows = [jax.device_put(x, partitioner.batch) for x in (prompt, beta)]
    with partitioner.activate():
        shared = sample(*args, pi, mu, *rows, jax.random.key(8))
    for one, many in zip(dataclasses.astuple(alone), dataclasses.astuple(shared), strict=True):
        np.testing.assert_allclose(one, many, atol=1e-5)


SCANNED = T5LM(
    dataclasses.replace(
        TINY.config,
        vocab_size=640,
        head_dim=12,
        mlp_dim=512,
        scan_layers=True,
        shared_relative_bias=False,
        dtype=jnp.bfloat16,
    )
)


def test_the_loop_neither_casts_nor_gathers_parameters():
    partitioner = make_partitioner(2, parameter_dims=2)
    shapes = jax.eval_shape(SCANNED.init, jax.random.key(0))
    shardings = partitioner.shardings(shapes, SCANNED.parameter_axes())
    params = jax.jit(SCANNED.init, out_shardings=shardings)(jax.random.key(0))
    rows = partitioner.distribute((np.tile(PROMPT, (4, 1)), np.full((8, 2), 0.5, np.float32)))
    with partitioner.activate():
        traced = sample.trace(SCANNED, Strategy(LENGTH), params, params, *rows, jax.random.key(1))
    (loop,) = (eqn for eqn in traced.jaxpr.eqns if eqn.primitive.name == "while")
    kernels = {leaf.shape for leaf in jax.tree.leaves(params["decoder"]["decoder"]["mlp"])}
    read = [v.aval.dtype for v in loop.invars if v.aval.shape in kernels]
    assert read == [jnp.bfloat16] * 6  # Gate, value and output, of two models.
    text = traced.lower().compile().as_text()
    inside = text[: text.index("\nENTRY ")]
    # One layer of two, of which a device has one half; a device's logits are more, too.
    smallest = min(math.prod(shape) for shape in kernels) // 4
    gathered = [
        math.prod(map(int, dims.split(",")))
        for dims in re.findall(r"\[([\d,]+)\]\S* all-gather\(", inside)
    ]
    assert all(size < smallest for size in gathered)
    assert re.search("all-gather", text[len(inside) :])  # Before the loop they are.


def test_parameters_for_sampling_give_the_same_logits_bit_for_bit(getkey):
    params = jax.jit(SCANNED.init)(getkey())
    prepared = SCANNED.for_sampling(flax.core.freeze(params))
    assert prepared["token_embedder"]["embedding"].dtype == jnp.bfloat16

    @jax.jit
    def two_steps(params):
        cache = SCANNED.prefill(params, SCANNED.encode(params, PROMPT), 3, LENGTH)
        first, cache = SCANNED.extend(params, cache, jnp.zeros(6, jnp.int32))
        return first, SCANNED.extend(params, cache, jnp.array([7, 39, 2, 3, 5, 11]))[0]

    for one, other in zip(two_steps(params), two_steps(prepared), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_second_call_compiles_nothing(policies):
    beta = jnp.zeros((2, 3))
    sample(TINY, Strategy(LENGTH), *policies, PROMPT, beta, jax.random.key(9))
    compiled = sample._cache_size()
    sample(TINY, Strategy(LENGTH), *policies, PROMPT + 0, beta + 0.5, jax.random.key(10))
    assert sample._cache_size() == compiled


@dataclasses.dataclass(frozen=True)
class Metronome(LanguageModel):
    """A language model that draws EOS (almost surely) at position `length`, and counts calls."""

    vocab_size, special_ids = VOCAB, SpecialIds()

    length: int
    calls: list = dataclasses.field(default_factory=list, hash=False, compare=False)

    def for_sampling(self, params):
        return params

    def encode(self, params, prompt):
        return prompt

    def prefill(self, params, encoded, samples, max_length):
        return jnp.zeros((), jnp.int32)

    def extend(self, params, cache, tokens):
        jax.debug.callback(lambda: self.calls.append(1))
        token = jnp.where(cache + 1 == self.length, EOS, 3)
        return jax.nn.one_hot(jnp.full(tokens.shape, token), VOCAB) * 1e3, cache + 1


def test_the_loop_ends_when_every_row_has():
    model = Metronome(4)
    beta = jnp.zeros((2, 3))
    rollout = sample(model, Strategy(50), {}, None, PROMPT, beta, jax.random.key(0))
    jax.effects_barrier()
    assert len(model.calls) == 4
    np.testing.assert_array_equal(rollout.mask.sum(axis=-1), 4)


def test_min_length_keeps_eos_away(policies):
    beta = jnp.full((2, 7), 0.5)
    strategy = Strategy(5, min_length=4)
    rollout = sample(TINY, strategy, *policies, PROMPT, beta, jax.random.key(3))
    lengths = np.asarray(rollout.mask.sum(axis=-1))
    assert lengths.min() >= 4 and np.isfinite(np.asarray(rollout.behaviour_logprob)).all()
    assert np.any(lengths == 4)


def test_truncated_weights_are_those_of_numpy(getkey):
    """temperature, then top-k, then top-p, against sorting in NumPy."""
    logits = np.asarray(jax.random.normal(getkey(), (7, 300))) * 3
    strategy = Strategy(1, temperature=0.7, top_k=50, top_p=0.8)
    got = np.asarray(strategy.weights(jnp.asarray(logits)))
    for row, weights in zip(logits / 0.7, got, strict=True):
        order = np.argsort(-row)[:50]
        probability = np.exp(row[order] - row.max())
        probability /= probability.sum()
        kept = order[: np.searchsorted(np.cumsum(probability), 0.8) + 1]
        wanted = np.zeros_like(row)
        wanted[kept] = np.exp(row[kept] - row.max())
        np.testing.assert_allclose(weights, wanted, rtol=1e-5)


def test_choose_inverts_the_cumulative_sum(getkey):
    weights = jax.random.uniform(getkey(), (5, 1000)) ** 8
    weights = jnp.where(jax.random.bernoulli(getkey(), 0.3, weights.shape), weights, 0.0)
    for _ in range(20):
        uniform = jax.random.uniform(getkey(), (5,))
        tokens, total = choose(weights, uniform)
        cumulative = np.cumsum(np.asarray(weights, np.float64), axis=-1)
        np.testing.assert_allclose(total, cumulative[:, -1], rtol=1e-6)
        target = np.asarray(uniform, np.float64) * cumulative[:, -1]
        for row, token in enumerate(np.asarray(tokens)):
            # Exact up to the rounding of a float32 sum.
            slack = 1e-5 * cumulative[row, -1]
            assert cumulative[row, token] > target[row] - slack
            assert cumulative[row, token] - weights[row, token] <= target[row] + slack


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-24])
def test_choose_never_draws_what_has_no_weight(uniform, getkey):
    """The extremes of the uniform number, rows whose first and last weights are zero."""
    magnitude = jnp.exp(20 * jax.random.normal(getkey(), (50, 700)))
    inside = (jnp.arange(700) > 130) & (jnp.arange(700) < 520) & (jnp.arange(700) % 7 == 3)
    weights = jnp.where(inside[None], magnitude, 0.0)
    weights = weights / weights.max(axis=-1, keepdims=True)
    tokens, _ = choose(weights, jnp.full((50,), uniform, jnp.float32))
    assert np.all(np.take_along_axis(np.asarray(weights), np.asarray(tokens)[:, None], -1) > 0)


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"max_length": 0}, "max_length: expected at least 1, got 0"),
        ({"max_length": 2, "min_length": 3}, "min_length"),
        ({"max_length": 2.0}, "max_length: expected an integer, got 2.0"),
        ({"max_length": 2, "top_k": 1.5}, "top_k"),
        ({"max_length": 2, "temperature": -1.0}, "temperature"),
        ({"max_length": 2, "temperature": float("inf")}, "temperature"),
        ({"max_length": 2, "top_k": -1}, "top_k"),
        ({"max_length": 2, "top_p": 0.0}, "top_p"),
    ],
)
def test_a_strategy_out_of_range_is_named(options, complaint, unchecked):
    with pytest.raises(ValueError, match=complaint):
        Strategy(**options)


@pytest.mark.parametrize("beta", [(0.0, float("nan")), (), (0.5, 1.5), (-0.1,)])
def test_a_weight_out_of_range_is_named(policies, beta):
    sampler = Sampler(TINY, Strategy(LENGTH), make_partitioner(1, devices=jax.devices()[:1]), 2)
    with pytest.raises(ValueError, match=r"expected beta in \[0, 1\], and a partner"):
        sampler.draw(*policies, np.asarray(PROMPT), beta, jax.random.key(9))


@pytest.mark.parametrize("prompt", [[2, 3, 4], np.zeros((0, 6), np.int32), [[2.0, 3.0]]])
def test_prompts_of_another_shape_are_named(policies, prompt, unchecked):
    sampler = Sampler(TINY, Strategy(LENGTH), make_partitioner(1, devices=jax.devices()[:1]), 2)
    with pytest.raises(ValueError, match="Sampler: expected prompts as token ids"):
        sampler.draw(*policies, np.asarray(prompt), (0.0,), jax.random.key(9))
