"""The network against T5X's numbers, and its own two ways of decoding against each other."""

import functools
import json

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM, shift_right
from po_jax.t5.network import Transformer

VERSIONS = ("t5_1_0", "t5_1_1")


def load_tree(path):
    flat = {name: jnp.asarray(value) for name, value in np.load(path).items()}
    return traverse_util.unflatten_dict(flat, sep="/")


def golden_config(golden, version, **options):
    settings = json.loads((golden / version / "params.json").read_text())["config"]
    return T5Config(**(settings | options))


def stack_layers(flat, shapes):
    """Parameters of T5X's examples/t5 in the layout of scalable_t5: layers stacked on axis 1."""
    stacked = {}
    for name, shape in shapes.items():
        side, *rest = name.split("/")
        if rest[0] != side:
            stacked[name] = flat[name]
            continue
        layer_shape = (shape[0], *shape[2:])
        if rest[1] == "relpos_bias":
            layers = [flat[f"{side}/relpos_bias/rel_embedding"]] * shape[1]
        else:
            layers = [flat["/".join((side, f"layers_{i}", *rest[1:]))] for i in range(shape[1])]
        stacked[name] = jnp.stack([layer.reshape(layer_shape) for layer in layers], axis=1)
    return traverse_util.unflatten_dict(stacked, sep="/")


def scanned(golden, version, params, **options):
    config = golden_config(golden, version, scan_layers=True, shared_relative_bias=False, **options)
    tree = json.loads((golden / version / "scalable_params.json").read_text())["params"]
    shapes = {name: tuple(leaf["shape"]) for name, leaf in tree.items()}
    return Transformer(config), stack_layers(traverse_util.flatten_dict(params, sep="/"), shapes)


@functools.cache
def packing(golden, kind):
    return dict(np.load(golden / "inputs" / f"{kind}.npz"))


def arguments(batch):
    names = ["encoder_input_tokens", "decoder_input_tokens"]
    if "encoder_segment_ids" in batch:
        names += ["encoder_segment_ids", "decoder_segment_ids"]
    return [jnp.asarray(batch[name]) for name in names]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("layout", ["params", "scalable_params"])
def test_parameter_tree_is_that_of_t5x(golden, version, layout):
    scan = layout == "scalable_params"
    options = {"scan_layers": True, "shared_relative_bias": False} if scan else {}
    module = Transformer(golden_config(golden, version, **options))
    tokens = jnp.ones((2, 3), jnp.int32)
    variables = jax.eval_shape(module.init, jax.random.key(0), tokens, tokens)
    expected = json.loads((golden / version / f"{layout}.json").read_text())["params"]
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    axes = traverse_util.flatten_dict(variables["params_axes"], sep="/")
    assert {k: list(v.shape) for k, v in params.items()} == {
        k: v["shape"] for k, v in expected.items()
    }
    assert {k.removesuffix("_axes"): list(v.names) for k, v in axes.items()} == {
        k: v["axes"] for k, v in expected.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_initial_scales_are_those_of_t5x(golden, version):
    """init_stats_emb256.json: mean and deviation of T5X's own initial parameters."""
    stats = json.loads((golden / version / "init_stats_emb256.json").read_text())
    stats = stats.get("params", stats)
    options = {"emb_dim": 256, "num_heads": 4, "head_dim": 64, "mlp_dim": 512, "vocab_size": 512}
    module = Transformer(golden_config(golden, version, **options))
    tokens = jnp.ones((2, 3), jnp.int32)
    params = jax.jit(module.init)(jax.random.key(1), tokens, tokens)["params"]
    for name, leaf in traverse_util.flatten_dict(params, sep="/").items():
        if name not in stats:
            assert "layers_1" in name  # The record keeps the first layer of each stack.
            continue
        # Both are samples: the deviation of n values is uncertain by 1/sqrt(2 n) of itself.
        wanted, uncertainty = stats[name]["std"], np.sqrt(1 / leaf.size)
        assert leaf.std() == pytest.approx(wanted, rel=5 * uncertainty, abs=1e-7), name
        assert abs(leaf.mean() - stats[name]["mean"]) <= 8 * wanted * uncertainty + 1e-7, name


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize("version", VERSIONS)
def test_logits_and_encodings_are_those_of_t5x(golden, version, kind):
    module = Transformer(golden_config(golden, version))
    params = {"params": load_tree(golden / version / "params.npz")}
    expected = np.load(golden / version / "forward.npz")
    batch = packing(golden, kind)
    encoder_mask = batch["encoder_input_tokens"] > 0
    tokens, _, *segments = arguments(batch)
    encoded = jax.jit(functools.partial(module.apply, method="encode"))(
        params, tokens, *segments[:1]
    )
    difference = np.abs(encoded - expected[f"{kind}_encoded"])
    assert difference[encoder_mask].max() < 2e-5
    difference = np.abs(
        jax.jit(module.apply)(params, *arguments(batch)) - expected[f"{kind}_logits"]
    )
    assert difference[batch["decoder_target_tokens"] > 0].max() < 2e-5


@pytest.mark.parametrize("version", VERSIONS)
def test_bfloat16_is_no_further_from_float32_than_that_of_t5x(golden, version):
    expected = np.load(golden / version / "forward.npz")
    batch = packing(golden, "padded")
    params = {"params": load_tree(golden / version / "params.npz")}
    module = Transformer(golden_config(golden, version, dtype="bfloat16"))
    logits = jax.jit(module.apply)(params, *arguments(batch))
    real = batch["decoder_target_tokens"] > 0
    exact = expected["padded_logits"][real]
    assert logits.dtype == jnp.float32
    ours = np.abs(logits[real] - exact)
    theirs = np.abs(expected["padded_logits_bf16_activations"][real] - exact)
    assert ours.max() <= theirs.max()
    assert ours.mean() <= 1.1 * theirs.mean()


@pytest.mark.parametrize(
    "version, remat",
    [("t5_1_0", "none"), ("t5_1_1", "none"), ("t5_1_1", "minimal"), ("t5_1_1", "full")],
)
def test_scanned_stack_equals_the_unscanned_one(golden, version, remat):
    params = load_tree(golden / version / "params.npz")
    module = Transformer(golden_config(golden, version))
    scan_module, scan_params = scanned(golden, version, params, remat_policy=remat)
    batch = packing(golden, "packed")

    def loss(module, params):
        return jnp.mean(jnp.square(module.apply({"params": params}, *arguments(batch))))

    value, gradients = jax.jit(jax.value_and_grad(functools.partial(loss, module)))(params)
    scan_value, scan_gradients = jax.jit(jax.value_and_grad(functools.partial(loss, scan_module)))(
        scan_params
    )
    assert scan_value == pytest.approx(float(value), rel=1e-6)
    shapes = {k: v.shape for k, v in traverse_util.flatten_dict(scan_gradients, sep="/").items()}
    flat = traverse_util.flatten_dict(gradients, sep="/")
    # The gradient of a bias that layers share is the sum of those of its copies.
    for side in ("encoder", "decoder"):
        copies = scan_gradients[side][side]["relpos_bias"].pop("rel_embedding")
        np.testing.assert_allclose(
            np.sum(copies, axis=1),
            np.asarray(flat[f"{side}/relpos_bias/rel_embedding"]),
            rtol=2e-3,
            atol=2e-5,
        )
        shapes.pop(f"{side}/{side}/relpos_bias/rel_embedding")
    for name, expected in traverse_util.flatten_dict(stack_layers(flat, shapes), sep="/").items():
        got = traverse_util.flatten_dict(scan_gradients, sep="/")[name]
        np.testing.assert_allclose(
            np.asarray(got), np.asarray(expected), rtol=2e-3, atol=2e-5, err_msg=name
        )


def test_minimal_remat_keeps_more_than_full_and_less_than_none():
    def kept(remat_policy):
        model = T5LM(
            T5Config(
                vocab_size=11,
                emb_dim=6,
                num_heads=2,
                head_dim=3,
                mlp_dim=20,
                num_encoder_layers=2,
                num_decoder_layers=2,
                scan_layers=True,
                shared_relative_bias=False,
                remat_policy=remat_policy,
            )
        )
        tokens = jnp.ones((3, 2, 5), jnp.int32)

        def backward(params):
            return jax.vjp(lambda p: model.score(p, tokens[:, 0], tokens, tokens > 0), params)[1]

        params = jax.eval_shape(model.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(backward, params)))

    assert kept("full") < kept("minimal") < kept("none")


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_steps_against_the_cache_equal_decoding_at_once(golden, version, scan, getkey):
    """Three completions of a prompt share its keys and values; two prompts, five positions."""
    params = load_tree(golden / version / "params.npz")
    model = T5LM(golden_config(golden, version))
    if scan:
        module, params = scanned(golden, version, params)
        model = T5LM(module.config)
    prompt = jax.random.randint(getkey(), (2, 7), 2, 100).at[1, 4:].set(0)
    completion = jax.random.randint(getkey(), (2, 3, 5), 2, 100)
    mask = jnp.ones(completion.shape, bool)
    inputs = shift_right(completion.reshape(6, 5))
    encoded = jax.jit(model.encode)(params, prompt)
    at_once = jax.jit(functools.partial(model.module.apply, method="decode"))(
        {"params": params}, encoded.states, encoded.mask, inputs
    )
    cache = jax.jit(model.prefill, static_argnums=(2, 3))(params, encoded, 3, 5)
    extend = jax.jit(model.extend)
    for t in range(5):
        logits, cache = extend(params, cache, inputs[:, t])
        np.testing.assert_allclose(logits, at_once[:, t], atol=2e-5)
    logprobs = jnp.take_along_axis(
        jax.nn.log_softmax(at_once), completion.reshape(6, 5, 1), axis=-1
    )
    score = jax.jit(model.score)
    np.testing.assert_allclose(
        score(params, prompt, completion, mask).reshape(6, 5), logprobs[..., 0], atol=2e-5
    )
    # A completion is scored the same alone, and however its prompt is padded.
    alone = score(params, prompt[1:, :4], completion[1:, 2:], mask[1:, 2:])
    np.testing.assert_allclose(alone[0, 0], logprobs.reshape(2, 3, 5)[1, 2], atol=2e-5)


def test_chunked_scores_equal_whole_ones(golden, getkey):
    config = golden_config(golden, "t5_1_1")
    params = load_tree(golden / "t5_1_1" / "params.npz")
    prompt = jax.random.randint(getkey(), (2, 7), 2, 100)
    completion = jax.random.randint(getkey(), (2, 3, 5), 2, 100)
    lengths = np.array([[5, 2, 3], [1, 4, 5]])
    mask = jnp.asarray(np.arange(5) < lengths[..., None])

    @functools.partial(jax.jit, static_argnums=1)
    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(params, chunk):
        scores = T5LM(config, chunk).score(params, prompt, completion, mask)
        return jnp.sum(jnp.square(scores)), scores

    (value, scores), gradients = total(params, None)
    (chunked_value, _), chunked_gradients = total(params, 2)
    assert chunked_value == pytest.approx(float(value), rel=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-3, atol=1e-3),
        chunked_gradients,
        gradients,
    )
    assert np.all(np.asarray(scores)[~np.asarray(mask)] == 0)
    assert np.all(np.asarray(scores)[np.asarray(mask)] < 0)


def test_dropout_is_drawn_from_its_key_and_off_without_one(golden, getkey):
    config = golden_config(golden, "t5_1_1", dropout_rate=0.3)
    params = load_tree(golden / "t5_1_1" / "params.npz")
    model = T5LM(config)
    prompt = jax.random.randint(getkey(), (2, 7), 2, 100)
    completion = jax.random.randint(getkey(), (2, 3, 5), 2, 100)
    score = jax.jit(functools.partial(model.score, params, prompt, completion, completion > 0))
    key = getkey()
    assert np.array_equal(score(dropout_key=key), score(dropout_key=key))
    assert not np.allclose(score(dropout_key=key), score(dropout_key=getkey()))
    without = T5LM(golden_config(golden, "t5_1_1"))
    np.testing.assert_allclose(
        score(), jax.jit(without.score)(params, prompt, completion, completion > 0), rtol=1e-6
    )


@pytest.mark.parametrize(
    "option, complaint",
    [
        ({"emb_dim": 0}, "emb_dim: expected a positive integer, got 0"),
        ({"dropout_rate": 1.0}, "dropout_rate: expected a rate"),
        ({"remat_policy": "some"}, "remat_policy: expected one of"),
        ({"scan_layers": True}, "a relative bias in each layer"),
    ],
)
def test_a_configuration_out_of_range_is_named(option, complaint):
    with pytest.raises(ValueError, match=complaint):
        T5Config(vocab_size=5, **option)
