"""The fused kernel, interpreted, against attention whose weights are kept; the network with it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.partitioning import make_partitioner
from po_jax.t5 import fused_attention
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.t5.layers import MASKED, attention_weights

# Batch, heads, queries, keys: in blocks of 16 queries, or in one, of no tile's size.
SIZES = [(3, 2, 64, 48), (2, 3, 7, 5)]


def operands(getkey, sizes, dtype, mask):
    rows, heads, queries, keys = sizes
    query = jax.random.normal(getkey(), (rows, heads, queries, 8), dtype)
    of_keys, values = jax.random.normal(getkey(), (2, rows, heads, keys, 8), dtype)
    length = (np.arange(keys) < keys - 3 * np.arange(rows)[:, None])[:, None, None]
    allowed = {
        "padding": length,
        "causal": np.tri(queries, keys, dtype=bool)[None, None],
        "packed": length & np.tri(queries, keys, k=2, dtype=bool),
    }[mask]
    bias = jax.random.normal(getkey(), (1, heads, queries, keys))
    return query, of_keys, values, jnp.where(jnp.asarray(allowed), 0.0, MASKED), bias


def kept(query, keys, values, mask_bias, relative_bias):
    """Attention as the network has it by default; held against Hugging Face's and T5X's."""
    weights = attention_weights(query, keys, mask_bias, relative_bias, query.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, values)


def with_gradients(attention, given, cotangent):
    """What it computes, and its gradients in all but the mask."""

    def differentiated(query, keys, values, relative_bias):
        return attention(query, keys, values, given[3], relative_bias)

    out, pull = jax.vjp(differentiated, *given[:3], given[4])
    return [out, *pull(cotangent)]


@pytest.mark.parametrize("mask", ["padding", "causal", "packed"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_kernel_is_attention_with_its_gradients(sizes, biased, mask, getkey, monkeypatch):
    monkeypatch.setattr(fused_attention, "MOST_WEIGHT_BYTES", 4 * 16 * 48)
    given = list(operands(getkey, sizes, jnp.float32, mask))
    if not biased:
        given[4] = None
    cotangent = jax.random.normal(getkey(), given[0].shape)
    got = [
        fused_attention.forward_kernel(*given, interpret=True),
        *fused_attention.backward_kernel(*given, cotangent, interpret=True),
    ]
    for name, a, b in zip(
        ("out", "query", "keys", "values", "bias"),
        got,
        with_gradients(kept, given, cotangent),
        strict=True,
    ):
        if b is None:
            assert a is None
        else:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-5, err_msg=name)


def test_in_bfloat16_the_kernel_is_as_exact_as_products_of_it(getkey):
    given = operands(getkey, (2, 3, 64, 48), jnp.bfloat16, "padding")
    cotangent = jax.random.normal(getkey(), given[0].shape, jnp.bfloat16)
    exact = [x.astype(jnp.float32) for x in (*given, cotangent)]
    wanted = with_gradients(kept, exact[:5], exact[5])
    kernel = [
        fused_attention.forward_kernel(*given, interpret=True),
        *fused_attention.backward_kernel(*given, cotangent, interpret=True),
    ]
    for fused, plain, truth in zip(
        kernel, with_gradients(kept, given, cotangent), wanted, strict=True
    ):
        off = [float(jnp.linalg.norm(x.astype(jnp.float32) - truth)) for x in (fused, plain)]
        assert off[0] <= 1.1 * off[1]


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("partitions", [None, 2])
def test_a_network_computes_the_same_with_it(rate, partitions, getkey):
    config = T5Config(
        vocab_size=16,
        emb_dim=6,
        num_heads=2,
        head_dim=3,
        mlp_dim=5,
        num_encoder_layers=2,
        num_decoder_layers=2,
        dropout_rate=rate,
        scan_layers=True,
        shared_relative_bias=False,
    )
    model = T5LM(config)
    params = model.init(getkey())
    real = np.arange(32) < np.array([[32], [17], [5], [26]])
    prompt = jnp.where(jnp.asarray(real), jax.random.randint(getkey(), (4, 32), 2, 16), 0)
    completion = jax.random.randint(getkey(), (4, 3, 16), 2, 16)
    mask = jnp.asarray(np.arange(16) < np.arange(5, 17).reshape(4, 3, 1))
    dropped = {"dropout_key": getkey()} if rate else {}
    weights = jax.random.normal(getkey(), mask.shape)

    def value_and_gradients(fused):
        model = T5LM(dataclasses.replace(config, fused_attention=fused))

        def total(params, prompt, completion):
            return jnp.sum(weights * model.score(params, prompt, completion, mask, **dropped))

        program = jax.jit(jax.value_and_grad(total))
        if partitions is None:
            return program(params, prompt, completion)
        partitioner = make_partitioner(partitions, devices=jax.devices()[:4])
        rows = jax.device_put((prompt, completion), partitioner.batch)
        with partitioner.activate():
            return program(jax.device_put(params, partitioner.replicated), *rows)

    (value, gradients), (wanted, of_plain) = value_and_gradients(True), value_and_gradients(False)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradients, of_plain
    )


def test_nothing_of_the_weights_size_is_kept():
    """Among what a backward pass keeps, nothing is as large as the weights."""
    shapes = [(2, 3, 64, 8), (2, 3, 48, 8), (2, 3, 48, 8), (2, 1, 1, 48), (1, 3, 64, 48)]
    given = [jnp.ones(shape) for shape in shapes]
    _, pull = jax.vjp(fused_attention.attend, *given)
    _, pull_of_kept = jax.vjp(kept, *given)
    largest = [max(x.size for x in jax.tree.leaves(found)) for found in (pull, pull_of_kept)]
    assert largest == [3 * 64 * 48, 2 * 3 * 64 * 48]
