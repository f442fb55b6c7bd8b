"""Fresh parameters made leaf by leaf are those that one program makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.partitioning import make_partitioner
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training import random_start

CONFIG = T5Config(
    vocab_size=24,
    emb_dim=8,
    num_heads=2,
    head_dim=5,
    mlp_dim=14,
    num_encoder_layers=3,
    num_decoder_layers=2,
    mlp_activations=("gelu", "linear"),
)
PARTITIONER = make_partitioner(2)


def stacked(key):
    """Two leaves of four layers, made in one loop, and one beside it."""

    def layer(_, key):
        first, second = jax.random.split(key)
        return None, (jax.random.normal(first, (3, 2)), jax.random.uniform(second, (5,)))

    kernel, bias = jax.lax.scan(layer, None, jax.random.split(key, 4))[1]
    return {"kernel": kernel, "bias": bias, "scale": jnp.ones(7)}


def t5():
    model = T5LM(CONFIG)
    return model.init, model.parameter_axes()


def loop():
    return stacked, {"kernel": (None, None, "mlp"), "bias": (None, None), "scale": (None,)}


@pytest.mark.parametrize(("model", "most"), [(t5, 9), (loop, 1)])
def test_leaf_by_leaf(model, most, monkeypatch):
    """Kinds of a T5: embedding, head, relative bias, scales, kernels in and out of attention, the
    query's, and those in and out of the feed-forward layer."""
    (init, axes), key = model(), jax.random.key(3)
    expected = jax.jit(init)(key)
    shardings = PARTITIONER.shardings(expected, axes)
    traced = []
    jit = jax.jit

    def counted(function, **options):
        def counts(*given):
            traced.append(function)
            return function(*given)

        return jit(counts, **options)

    with monkeypatch.context() as patched:
        patched.setattr(jax, "jit", counted)
        params = random_start.fresh_parameters(init, key, shardings)
    made = jax.tree.leaves(params)
    for one, other, where in zip(
        made, jax.tree.leaves(expected), jax.tree.leaves(shardings), strict=True
    ):
        np.testing.assert_array_equal(one, other)
        assert one.sharding == where
    assert len(traced) == most < len(made)
