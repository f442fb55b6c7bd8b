"""Fused attention as the compiler for TPUs has it: it fits, and neither keeps nor moves weights."""

import importlib.util

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import pytest

from po_jax.partitioning import make_partitioner
from po_jax.planning.chips import Topology
from po_jax.t5 import fused_attention
from po_jax.t5.layers import attention_weights

ROWS, HEADS, WIDTH = 8, 16, 64


def kept(query, keys, values, mask_bias, relative_bias):
    weights = attention_weights(query, keys, mask_bias, relative_bias, query.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, values)


def compiled(attention, queries, keys, biased, dtype):
    """Gradients of an attention, rows over two chips and heads over two."""
    partitioner = make_partitioner(2, devices=Topology.parse("v5p:2x2x1").devices())

    def laid(shape, dtype, *axes):
        sharding = NamedSharding(partitioner.mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    given = [
        laid((ROWS, HEADS, length, WIDTH), dtype, "data", "model")
        for length in (queries, keys, keys)
    ]
    given.append(laid((ROWS, 1, 1, keys), jnp.float32, "data"))
    bias = laid((1, HEADS, queries, keys), jnp.float32, None, "model") if biased else None

    def total(query, keys, values, relative_bias, mask_bias):
        out = attention(query, keys, values, mask_bias, relative_bias)
        return jnp.sum(jnp.square(out.astype(jnp.float32)))

    gradients = jax.grad(total, (0, 1, 2, 3) if biased else (0, 1, 2))
    with partitioner.activate():
        return jax.jit(gradients).lower(*given[:3], bias, given[3]).compile()


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="make test-plan installs it")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize(
    "queries, keys, biased",
    [(512, 512, True), (448, 448, True), (80, 80, True), (1024, 1024, True), (256, 2048, False)],
)
def test_it_fits_a_chip(queries, keys, biased, dtype):
    program = compiled(fused_attention.attend, queries, keys, biased, dtype)
    assert program.as_text().count("tpu_custom_call") == 2


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="make test-plan installs it")
def test_no_weights_in_memory_and_no_operand_gathered():
    fused = compiled(fused_attention.attend, 512, 512, True, jnp.bfloat16)
    plain = compiled(kept, 512, 512, True, jnp.bfloat16)
    moved = [each.cost_analysis()["bytes accessed"] for each in (fused, plain)]
    weights = ROWS // 2 * HEADS // 2 * 512 * 512 * 2  # bytes of a chip
    assert moved[0] + 2 * weights < moved[1]
    held = [each.memory_analysis().temp_size_in_bytes for each in (fused, plain)]
    assert held[0] < held[1]
    assert "all-gather" not in fused.as_text()
