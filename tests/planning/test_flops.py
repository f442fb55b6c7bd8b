"""Arithmetic against closed forms: products, loops, what is recomputed, and a T5's parameters."""

import jax
import jax.numpy as jnp
import pytest

from po_jax.partitioning import make_partitioner
from po_jax.planning.flops import matrix_flops
from po_jax.planning.hlo import Program
from po_jax.t5 import fused_attention
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM


def flops(function, *arguments, trips=1):
    return matrix_flops(jax.jit(function).trace(*arguments).jaxpr, trips)


def test_a_batched_product():
    x, y = jnp.ones((2, 3, 5)), jnp.ones((2, 5, 7))
    assert flops(jnp.matmul, x, y) == 2 * (2 * 3 * 7) * 5


def test_loops_count_as_often_as_they_run():
    x, w = jnp.ones((3, 5)), jnp.ones((5, 5))
    one = 2 * 3 * 5 * 5

    def scanned(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=7)[0]

    def until(x, w):
        return jax.lax.while_loop(lambda c: jnp.all(c < 1), lambda c: c @ w, x)

    assert flops(scanned, x, w) == 7 * one
    assert flops(until, x, w, trips=11) == 11 * one


def in_stages(x, w):
    """A loop over all rows and, when it is over, one over the first."""

    def until(x):
        return jax.lax.while_loop(
            lambda c: jnp.all(c[1] < 1) & (c[0] < 11), lambda c: (c[0] + 1, c[1] @ w), (0, x)
        )[1]

    return until(until(x)[:1])


def test_the_first_stage_of_a_loop_has_all_trips():
    x, w = jnp.ones((3, 5)), jnp.ones((5, 5))
    assert flops(in_stages, x, w, trips=13) == 13 * 2 * 3 * 5 * 5
    program = Program.parse(jax.jit(in_stages).lower(x, w).compile().as_text(), trips=13)
    times = [times for one, _, times in program.runs() if one.opcode in ("dot", "custom-call")]
    assert times == [13, 0]


def test_of_branches_the_dearest_counts():
    x, w = jnp.ones((3, 5)), jnp.ones((5, 5))

    def branches(which, x, w):
        return jax.lax.switch(
            which, [lambda x, w: x, lambda x, w: x @ w, lambda x, w: x @ w @ w], x, w
        )

    assert flops(branches, 1, x, w) == 2 * 2 * 3 * 5 * 5


@pytest.mark.parametrize("biased", [True, False])
def test_fused_attention_counts_as_its_products_on_all_devices(biased):
    """Forward two products; backward the logits again, and four gradients."""
    rows, heads, queries, keys, width = 4, 2, 32, 48, 8
    shapes = [(rows, heads, queries, width), *[(rows, heads, keys, width)] * 2, (1, 1, 1, keys)]
    given = [jnp.ones(shape) for shape in shapes]
    given.append(jnp.ones((1, heads, queries, keys)) if biased else None)
    one = 2 * rows * heads * queries * keys * width
    kernels = fused_attention.forward_kernel, fused_attention.backward_kernel
    assert flops(kernels[0], *given) == 2 * one
    assert flops(kernels[1], *given, given[0]) == 5 * one
    partitioner = make_partitioner(2, devices=jax.devices()[:4])
    with partitioner.activate():
        assert flops(fused_attention.attend, *given) == 2 * one


@pytest.mark.parametrize(("recomputed", "products"), [(False, 3), (True, 4)])
def test_a_backward_pass_takes_two_products_and_what_it_recomputes(recomputed, products):
    """Of each layer: forward, and the gradients of input and weights."""
    x, w = jnp.ones((3, 5)), jnp.ones((5, 5))

    def layer(c, w):
        return jnp.tanh(c @ w)

    layer = jax.checkpoint(layer) if recomputed else layer

    def loss(x, w):
        return jnp.sum(jax.lax.scan(lambda c, _: (layer(c, w), None), x, None, length=7)[0])

    assert flops(jax.grad(loss, (0, 1)), x, w) == products * 7 * (2 * 3 * 5 * 5)


def test_a_t5_does_two_operations_for_each_weight_and_token():
    """But for embeddings, and attention between tokens: 4 x tokens x keys x heads x head size."""
    sizes = dict(emb_dim=16, num_heads=2, head_dim=6, mlp_dim=24)
    config = T5Config(32, **sizes, num_encoder_layers=3, num_decoder_layers=2)
    model = T5LM(config)
    rows, source, target, inner = 5, 7, 11, 2 * 6
    params = jax.eval_shape(model.init, jax.random.key(0))

    def weights(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        kept = (x for path, x in leaves if "kernel" in jax.tree_util.keystr(path))
        return sum(x.size for x in kept)

    cross = sum(  # keys and values of the prompts are made once a prompt's token
        weights(params["decoder"][f"layers_{i}"]["encoder_decoder_attention"][name])
        for i in range(2)
        for name in ("key", "value")
    )
    expected = 2 * rows * source * (weights(params["encoder"]) + cross)
    expected += 2 * rows * target * (weights(params["decoder"]) - cross)
    expected += 4 * rows * inner * (3 * source**2 + 2 * target**2 + 2 * target * source)
    inputs = jax.ShapeDtypeStruct((rows, source), jnp.int32)
    targets = jax.ShapeDtypeStruct((rows, target), jnp.int32)
    # Relative positions are looked up by a product as well, which no row multiplies.
    found = flops(model.logits, params, inputs, targets)
    assert expected <= found < 1.05 * expected
