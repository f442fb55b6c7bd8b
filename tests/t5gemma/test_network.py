"""The network's ways to run against each other; test_hugging_face.py has the truth."""

import dataclasses

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.checkpoints import describe, trees
from po_jax.checkpoints.leaves import from_array
from po_jax.language_model import SpecialIds
from po_jax.models import SupervisedModel
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Strategy, sample
from po_jax.t5gemma.config import StackConfig, T5Gemma2Config, T5GemmaConfig
from po_jax.t5gemma.language_model import T5GemmaLM

IDS = SpecialIds(pad=3, eos=1, start=2)
ENCODER = StackConfig(
    emb_dim=10,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=11,
    num_layers=3,
    query_scalar=7,
    sliding_window=2,
)
DECODER = dataclasses.replace(
    ENCODER, emb_dim=8, num_heads=6, num_layers=2, sliding_layers=None, sliding_window=3
)
CONFIG = T5GemmaConfig(vocab_size=23, encoder=ENCODER, decoder=DECODER)
MODEL = T5GemmaLM(CONFIG, special_ids=IDS)
SECOND = T5GemmaLM(
    T5Gemma2Config(
        vocab_size=23,
        encoder=dataclasses.replace(ENCODER, emb_dim=8, sliding_window=4, attention_softcap=None),
        decoder=dataclasses.replace(DECODER, attention_softcap=None, full_rope_theta=700.0),
        end_of_image=7,
    ),
    special_ids=IDS,
)
PROMPT = np.random.default_rng(0).integers(4, 23, (2, 9)).astype(np.int32)
PROMPT[1, 2], PROMPT[1, 4:] = 7, IDS.pad
COMPLETION = np.random.default_rng(1).integers(4, 23, (2, 3, 7)).astype(np.int32)
MASK = np.arange(7) < np.array([[7, 2, 4], [1, 7, 6]])[..., None]


def with_options(model=MODEL, **options):
    return dataclasses.replace(model, config=dataclasses.replace(model.config, **options))


@pytest.fixture(scope="module")
def params():
    return moved(MODEL)


@pytest.fixture(scope="module")
def second_params():
    return moved(SECOND)


def moved(model):
    """Parameters whose norms do not begin at 0."""
    start = jax.jit(model.init)(jax.random.key(0))
    noise = jax.random.normal(jax.random.key(1), (64,))
    return jax.tree.map(lambda x: x + noise[: len(x)] / 3 if x.ndim == 1 else x, start)


def stacked(params, model):
    """The parameters in the tree of stacked layers."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    leaves = {name: from_array(np.asarray(x), name) for name, x in flat.items()}
    shapes = describe.parameter_shapes(model.config)
    found = {name: leaf.value() for name, leaf in trees.fit(leaves, shapes, "test").items()}
    return flax.traverse_util.unflatten_dict(found, sep="/")


def loss(model):
    def total(params):
        scores = model.score(params, *map(jnp.asarray, (PROMPT, COMPLETION, MASK)))
        return jnp.mean(jnp.square(scores))

    return jax.jit(jax.value_and_grad(total))


def test_a_scanned_and_rematerialised_stack_equals_the_named_layers(params):
    value, gradient = loss(MODEL)(params)
    scanned = with_options(scan_layers=True, remat_policy="minimal")
    found, found_gradient = loss(scanned)(stacked(params, scanned))
    assert found == pytest.approx(float(value), rel=1e-6)
    for one, other in zip(
        jax.tree.leaves(found_gradient), jax.tree.leaves(stacked(gradient, scanned)), strict=True
    ):  # Of the largest: sums of thousands of terms that cancel are small beside their rounding.
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-5 * np.abs(other).max())


def test_gradients_of_the_second_are_finite_in_bfloat16(second_params):
    """All of them, the one of the vector that ends an image too."""
    model = with_options(SECOND, dtype="bfloat16", scan_layers=True, remat_policy="full")
    value, gradient = loss(model)(stacked(second_params, model))
    assert np.isfinite(value) and value.dtype == jnp.float32
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all() and leaf.dtype == jnp.float32 and np.abs(leaf).max() > 0


def test_gradients_are_finite_in_bfloat16(params):
    model = with_options(dtype="bfloat16", scan_layers=True, remat_policy="full")
    value, gradient = loss(model)(stacked(params, model))
    assert np.isfinite(value) and value.dtype == jnp.float32
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all() and leaf.dtype == jnp.float32 and np.abs(leaf).max() > 0


def test_caches_have_the_heads_of_keys_the_whole_prompt_and_short_windows():
    def shapes(model):
        def prefill(params):
            cache = model.prefill(params, model.encode(params, jnp.asarray(PROMPT)), 3, 7)
            return cache.cross, cache.own

        found = jax.eval_shape(prefill, jax.eval_shape(model.init, jax.random.key(0)))
        return jax.tree.map(lambda x: x.shape, found)

    # The decoder's first layer slides, its second does not; [rows, heads, length, width].
    cross, own = shapes(MODEL)
    assert cross == (((2, 2, 9, 6),) * 2,) * 2
    assert own == (((6, 2, 3, 6),) * 2, ((6, 2, 7, 6),) * 2)
    cross, own = shapes(with_options(scan_layers=True))
    assert cross == ((2, 2, 2, 9, 6),) * 2 and own == ((2, 6, 2, 7, 6),) * 2
    assert shapes(SECOND) == shapes(MODEL)


@pytest.mark.parametrize(
    ("model", "seen"),
    [
        (MODEL, [False, False, *[True] * 5, False, False]),  # by two positions to either side
        (SECOND, [False, False, *[True] * 4, False, False, False]),  # one back, two ahead
    ],
)
def test_an_encoder_looks_to_both_sides_within_its_windows(model, seen):
    one = dataclasses.replace(model.config.encoder, num_layers=1, sliding_layers=[True])
    model = with_options(model, encoder=one)
    params = moved(model)
    encode = jax.jit(lambda prompt: model.encode(params, prompt).states[0])
    before = encode(PROMPT)
    after = encode(np.where(np.arange(9) == 4, 5 + PROMPT[:1, 4:5] % 7, PROMPT))
    changed = np.abs(np.asarray(after - before)).max(axis=-1) > 1e-6
    np.testing.assert_array_equal(changed, seen)


def test_parameters_for_sampling_give_the_same_logits_bit_for_bit(params):
    model = with_options(dtype="bfloat16")

    @jax.jit
    def two_steps(params):
        cache = model.prefill(params, model.encode(params, jnp.asarray(PROMPT)), 2, 3)
        first, cache = model.extend(params, cache, jnp.full(4, IDS.start))
        return first, model.extend(params, cache, jnp.array([7, 9, 2, 3]))[0]

    prepared = model.for_sampling(params)
    assert prepared["decoder"]["token_embedder"]["embedding"].dtype == jnp.bfloat16
    for one, other in zip(two_steps(params), two_steps(prepared), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_mesh_draws_what_one_device_draws(params):
    """Of four partitions, which do not divide the two heads of keys."""
    prompt, beta = np.tile(PROMPT, (4, 1)), np.full((8, 2), 0.5, np.float32)
    other = jax.tree.map(lambda x: 0.9 * x, params)
    args = (MODEL, Strategy(5))
    alone = sample(*args, params, other, prompt, beta, jax.random.key(8))
    partitioner = make_partitioner(4, parameter_dims=2)
    shardings = partitioner.shardings(params, MODEL.parameter_axes())
    pi, mu = (jax.device_put(tree, shardings) for tree in (params, other))
    rows = partitioner.distribute((prompt, beta))
    with partitioner.activate():
        shared = sample(*args, pi, mu, *rows, jax.random.key(8))
    for one, many in zip(dataclasses.astuple(alone), dataclasses.astuple(shared), strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-5)


def test_supervised_training_begins_with_the_models_own_start(params):
    """T5X's features, packed and not, begin with 0; the losses are those of `score`."""
    model = SupervisedModel(language_model=MODEL, loss_normalizing_factor=None)
    targets = np.where(MASK, COMPLETION, IDS.pad)[:, 0]
    alone = {
        "encoder_input_tokens": PROMPT,
        "decoder_target_tokens": targets,
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
    }
    pair = {name: rows.reshape(1, -1) for name, rows in alone.items()}
    for side, length in (("encoder", 9), ("decoder", 7)):
        pair[f"{side}_segment_ids"] = np.repeat([[1, 2]], length, axis=1)
    expected = jax.jit(MODEL.score)(params, PROMPT, COMPLETION[:, :1], MASK[:, :1])
    for features in (alone, pair):
        found, _ = jax.jit(model.loss_fn)(params, features, None)
        assert -found == pytest.approx(float(expected.sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"emb_dim": 0}, "emb_dim: expected a positive integer, got 0"),
        ({"rope_theta": 0.0}, "rope_theta: expected a positive number, got 0.0"),
        ({"num_kv_heads": 3}, "a multiple of num_kv_heads.* got 4, 3 and 6"),
        ({"head_dim": 7}, "an even head_dim, got 4, 2 and 7"),
        ({"full_rope_factor": -1.0}, "full_rope_factor: expected a positive number, got -1.0"),
        ({"sliding_layers": [True]}, "sliding_layers: expected one for each of 3 layers, got 1"),
    ],
)
def test_a_stack_out_of_range_is_named(option, complaint):
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(ENCODER, **option)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"dropout_rate": 1.0}, "dropout_rate: expected a rate"),
        ({"remat_policy": "some"}, "remat_policy: expected one of"),
        ({"dtype": "float16"}, "dtype: expected float32 or bfloat16"),
        ({"final_softcap": 0.0}, "final_softcap: expected more than 0"),
    ],
)
def test_a_configuration_out_of_range_is_named(option, complaint):
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(CONFIG, **option)


@pytest.mark.parametrize(
    ("stack", "complaint"),
    [
        ({"emb_dim": 10}, r"expected one emb_dim of encoder and decoder, got \[10, 8\]"),
        ({"attention_softcap": 50.0}, r"expected no attention_softcap, got \[50.0, None\]"),
    ],
)
def test_stacks_that_no_second_has_are_refused(stack, complaint):
    encoder = dataclasses.replace(SECOND.config.encoder, **stack)
    with pytest.raises(ValueError, match=complaint):
        with_options(SECOND, encoder=encoder)
