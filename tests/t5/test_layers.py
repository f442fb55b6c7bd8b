"""Relative positions against T5X's bucket tables; the bias against a plain gather; products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.t5.layers import (
    MASKED,
    RelativeBias,
    attention_weights,
    product,
    relative_buckets,
    transposed,
)


def test_buckets_are_those_of_t5x(golden):
    """Tables are named as bi_b32_d128: direction, buckets, maximal distance."""
    tables = dict(np.load(golden / "relpos_buckets.npz"))
    line = tables.pop("relative_position")
    square = np.arange(40)[None, :] - np.arange(40)[:, None]
    for name, table in tables.items():
        direction, buckets, distance = name.removeprefix("matrix40_").split("_")
        got = relative_buckets(
            square if name.startswith("matrix40") else line,
            bidirectional=direction == "bi",
            num_buckets=int(buckets[1:]),
            max_distance=int(distance[1:]),
        )
        np.testing.assert_array_equal(got, table, err_msg=name)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("queries, keys", [(3, 7), (7, 3), (5, 5), (1, 2)])
def test_bias_is_the_table_at_each_bucket(bidirectional, queries, keys, getkey):
    bias = RelativeBias(2, 32, 128, bidirectional)
    variables = bias.init(getkey(), queries, keys)
    relative = np.arange(keys)[None, :] - np.arange(queries)[:, None]
    buckets = relative_buckets(
        relative, bidirectional=bidirectional, num_buckets=32, max_distance=128
    )
    table = variables["params"]["rel_embedding"]
    np.testing.assert_allclose(
        bias.apply(variables, queries, keys)[0], table[:, buckets], rtol=1e-6
    )

    def total(table, weights):
        return jnp.sum(weights * bias.apply({"params": {"rel_embedding": table}}, queries, keys))

    weights = jax.random.normal(getkey(), (1, 2, queries, keys))
    gradient = jax.grad(total)(table, weights)
    expected = jnp.zeros_like(table).at[:, buckets].add(weights[0])
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_row_is_a_row_of_the_whole_bias(getkey):
    bias = RelativeBias(3, 8, 20, False)
    variables = bias.init(getkey(), 7, 7)
    whole = bias.apply(variables, 7, 7)
    row = jax.jit(lambda t: bias.apply(variables, t, 7, method="row"))
    for t in range(7):
        np.testing.assert_allclose(row(t)[0, :, 0], whole[0, :, t], rtol=1e-6)


@pytest.mark.parametrize(
    "x, kernel, axes, equation",
    [
        ((2, 3, 5), (5, 7), 1, "bse,ef->bsf"),
        ((2, 3, 5), (5, 7, 4), 1, "bse,ehd->bshd"),
        ((2, 3, 7, 4), (7, 4, 5), 2, "bshd,hde->bse"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_product_and_its_cotangents_are_those_of_einsum(x, kernel, axes, equation, dtype, getkey):
    operands = [jax.random.normal(getkey(), shape).astype(dtype) for shape in (x, kernel)]

    def ours(x, kernel):
        return product(x, kernel, axes, jnp.float32)

    def theirs(x, kernel):
        return jnp.einsum(equation, x, kernel, preferred_element_type=jnp.float32)

    got, got_vjp = jax.vjp(ours, *operands)
    expected, expected_vjp = jax.vjp(theirs, *operands)
    cotangent = jax.random.normal(getkey(), expected.shape)
    for a, b in zip((got, *got_vjp(cotangent)), (expected, *expected_vjp(cotangent)), strict=True):
        assert a.dtype == b.dtype
        tolerance = 1e-5 if dtype == "float32" else 1e-2
        np.testing.assert_allclose(
            a.astype("float32"), b.astype("float32"), rtol=tolerance, atol=1e-5
        )


def test_transposed_is_its_own_cotangent_transposed(getkey):
    table, weights = (jax.random.normal(getkey(), shape) for shape in ((3, 5), (5, 3)))
    gradient = jax.grad(lambda table: jnp.vdot(transposed(table), weights))(table)
    np.testing.assert_array_equal(gradient, weights.T)


def attention_inputs(key, dtype, relative):
    """Queries [2, 3, 5, 7], keys [2, 3, 4, 7], a mask with one key hidden, and a bias or None."""
    keys = jax.random.split(key, 3)
    query = jax.random.normal(keys[0], (2, 3, 5, 7), dtype)
    key = jax.random.normal(keys[1], (2, 3, 4, 7), dtype)
    mask_bias = jnp.zeros((2, 1, 1, 4)).at[1, ..., 3].set(MASKED)
    relative_bias = jax.random.normal(keys[2], (1, 3, 5, 4)) if relative else None
    return query, key, mask_bias, relative_bias


@pytest.mark.parametrize("relative", [False, True])
def test_attention_weights_and_their_gradient_are_those_of_autodiff(relative, getkey):
    query, key, mask_bias, relative_bias = attention_inputs(getkey(), jnp.float32, relative)

    def plain(query, key, relative_bias):
        bias = mask_bias if relative_bias is None else mask_bias + relative_bias
        return jax.nn.softmax(jnp.einsum("bhqd,bhkd->bhqk", query, key) + bias)

    def ours(query, key, relative_bias):
        return attention_weights(query, key, mask_bias, relative_bias, jnp.float32)

    wanted, wanted_pullback = jax.vjp(plain, query, key, relative_bias)
    got, pullback = jax.vjp(ours, query, key, relative_bias)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_array_equal(got[1, :, :, 3], 0.0)
    cotangent = jax.random.normal(getkey(), got.shape)
    for one, other in zip(
        jax.tree.leaves(pullback(cotangent)),
        jax.tree.leaves(wanted_pullback(cotangent)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_attention_keeps_its_weights_for_the_gradient_once_and_in_their_dtype(getkey):
    inputs = attention_inputs(getkey(), jnp.bfloat16, True)
    weights, pullback = jax.vjp(lambda *args: attention_weights(*args, jnp.bfloat16), *inputs)
    kept = [leaf.dtype for leaf in jax.tree.leaves(pullback) if leaf.shape == weights.shape]
    assert kept == [jnp.bfloat16]
    of_query, _, _, of_relative = pullback(weights)
    assert (of_query.dtype, of_relative.dtype) == (jnp.bfloat16, jnp.float32)
