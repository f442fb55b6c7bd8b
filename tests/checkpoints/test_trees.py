"""From named layers to stacked ones and back, with NumPy's stack as the truth."""

import dataclasses

import numpy as np
import pytest

from po_jax.checkpoints import describe, trees
from po_jax.checkpoints.leaves import from_array


def leaves(arrays):
    return {name: from_array(value, name) for name, value in arrays.items()}


def stacked(config):
    return dataclasses.replace(config, scan_layers=True, shared_relative_bias=False)


def per_layer(config):
    return dataclasses.replace(config, shared_relative_bias=False)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].value(), value, name)


def test_named_layers_become_stacked_ones(small):
    shapes = describe.parameter_shapes(stacked(small.config))
    found = trees.fit(leaves(small.params), shapes, "here")
    E, L, H, D = 14, 2, 2, 5
    query = found["encoder/encoder/attention/query/kernel"].value()
    out = found["encoder/encoder/attention/out/kernel"].value()
    bias = found["encoder/encoder/relpos_bias/rel_embedding"].value()
    assert query.shape == (E, L, H, D) and out.shape == (H, L, D, E) and bias.shape == (H, L, 32)
    for i in range(L):
        layer = f"encoder/layers_{i}/attention"
        np.testing.assert_array_equal(
            query[:, i].reshape(E, H * D), small.params[f"{layer}/query/kernel"]
        )
        np.testing.assert_array_equal(
            out[:, i].reshape(H * D, E), small.params[f"{layer}/out/kernel"]
        )
        np.testing.assert_array_equal(bias[:, i], small.params["encoder/relpos_bias/rel_embedding"])
    norm = "pre_attention_layer_norm/scale"
    expected = np.stack([small.params[f"encoder/layers_{i}/{norm}"] for i in range(L)], 1)
    np.testing.assert_array_equal(found[f"encoder/encoder/{norm}"].value(), expected)


@pytest.mark.parametrize("between", [stacked, per_layer])
def test_there_and_back(small, between):
    shapes = {name: value.shape for name, value in small.params.items()}
    there = trees.fit(
        leaves(small.params), describe.parameter_shapes(between(small.config)), "here"
    )
    assert_same(trees.fit(there, shapes, "there"), small.params)


def test_stacked_layers_become_named_ones_with_a_bias_each(small):
    rng = np.random.default_rng(0)
    shapes = describe.parameter_shapes(per_layer(small.config))
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    there = trees.fit(leaves(arrays), describe.parameter_shapes(stacked(small.config)), "here")
    assert_same(trees.fit(there, shapes, "there"), arrays)


def test_biases_that_differ_cannot_be_shared(small):
    shapes = describe.parameter_shapes(per_layer(small.config))
    arrays = {name: np.zeros(shape) for name, shape in shapes.items()}
    arrays["encoder/layers_1/relpos_bias/rel_embedding"][1, 7] = 0.5
    wanted = {name: value.shape for name, value in small.params.items()}
    found = trees.fit(leaves(arrays), wanted, "here")
    found["decoder/relpos_bias/rel_embedding"].value()
    with pytest.raises(ValueError, match="shared .* encoder, got layer 1 .* by 0.5.*umt5"):
        found["encoder/relpos_bias/rel_embedding"].value()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_encoder_layers", 3, "9 missing .*encoder/layers_2/attention/key/kernel"),
        ("num_encoder_layers", 1, "9 unknown .*encoder/layers_1/attention/key/kernel"),
        ("mlp_dim", 23, r"mlp/wi_0/kernel: expected shape \(14, 23\) for .*, got \(14, 22\)"),
        ("mlp_activations", ("relu",), "missing .*mlp/wi/kernel.* unknown .*mlp/wi_0/kernel"),
        ("logits_via_embedding", True, "1 unknown .*decoder/logits_dense/kernel"),
    ],
)
def test_a_network_that_does_not_fit(small, option, value, message):
    shapes = describe.parameter_shapes(dataclasses.replace(small.config, **{option: value}))
    with pytest.raises(ValueError, match=message):
        trees.fit(leaves(small.params), shapes, "here")


@pytest.mark.parametrize("tree", [lambda config: config, stacked, per_layer])
@pytest.mark.parametrize("gated", [True, False])
def test_the_network_is_inferred_from_shapes(small, tree, gated):
    config = small.config
    if not gated:
        config = dataclasses.replace(config, mlp_activations=("relu",), logits_via_embedding=True)
    shapes = describe.parameter_shapes(tree(config))
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    options = dict(activation=None, where="here")
    assert describe.infer_config(leaves(arrays), **options) == config


def test_not_a_t5():
    with pytest.raises(ValueError, match="here: expected the parameters of a T5, got 1 leaves"):
        describe.infer_config(
            leaves({"dense/kernel": np.zeros((2, 3))}),
            activation=None,
            where="here",
        )
