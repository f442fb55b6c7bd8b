"""Checkpoints that T5X itself wrote: every leaf, every layout."""

import dataclasses
import itertools
import json

from flax import serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.checkpoints import convert, describe
from po_jax.checkpoints.convert import Target
from po_jax.checkpoints.load import load, open_checkpoint
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.optimizers import Adafactor

MODELS = ("t5_1_0", "t5_1_1")


def network(golden, model, **options):
    config = json.loads((golden / model / "params.json").read_text())["config"]
    return T5LM(T5Config(**config, **options))


def like(model):
    return jax.eval_shape(model.init, jax.random.key(0))


def after_three_steps(golden, model):
    """Parameters by path, as T5X held them when it wrote its checkpoints."""
    saved = np.load(golden / model / "adafactor" / "finetune_params.npz")
    return {name.removeprefix("step3:"): saved[name] for name in saved}


def by_path(tree):
    keyed, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): leaf for k, leaf in keyed}


@pytest.mark.parametrize(
    ("model", "kind"),
    [*itertools.product(MODELS, ("legacy", "orbax")), ("t5_1_1", "legacy_bf16")],
)
def test_every_leaf_of_a_checkpoint(golden, model, kind):
    # The path of a run's directory stands for its latest checkpoint.
    params = by_path(load(golden / f"checkpoints/{model}_{kind}", like(network(golden, model))))
    expected = after_three_steps(golden, model)
    assert set(params) == set(expected)
    for name, value in expected.items():
        rounded = value.astype(jnp.bfloat16) if kind == "legacy_bf16" else value
        np.testing.assert_array_equal(params[name], rounded.astype(np.float32), name)


@pytest.mark.parametrize("kind", ["legacy", "orbax"])
def test_every_leaf_of_stacked_layers(golden, kind):
    path = golden / f"checkpoints/t5_1_1_scalable_{kind}/checkpoint_3"
    model = network(golden, "t5_1_1", scan_layers=True, shared_relative_bias=False)
    saved = np.load(golden / "t5_1_1/adafactor/scalable_finetune_params.npz")
    params = by_path(load(path, like(model)))
    assert len(params) == 29
    for name, value in params.items():
        np.testing.assert_array_equal(value, saved[f"step3:{name}"], name)
    # The same values, layer by layer.
    unstacked = dataclasses.replace(model.config, scan_layers=False)
    named = by_path(load(path, like(T5LM(unstacked))))
    for i in range(2):
        key = saved["step3:encoder/encoder/attention/key/kernel"][:, i].reshape(32, 24)
        np.testing.assert_array_equal(named[f"encoder/layers_{i}/attention/key/kernel"], key)
        out = saved["step3:decoder/decoder/encoder_decoder_attention/out/kernel"][:, i]
        found = named[f"decoder/layers_{i}/encoder_decoder_attention/out/kernel"]
        np.testing.assert_array_equal(found, out.reshape(24, 32))
        bias = saved["step3:decoder/decoder/relpos_bias/rel_embedding"][:, i]
        np.testing.assert_array_equal(named[f"decoder/layers_{i}/relpos_bias/rel_embedding"], bias)


def test_old_single_file(t5x_testdata):
    """Against the sums and first values of each array, made with flax and numpy."""
    path = t5x_testdata / "test_t5_tiny.checkpoint_0"
    checkpoint = open_checkpoint(path)
    config = describe.infer_config(checkpoint.parameters, activation=None, where=str(path))
    sizes = dict(vocab_size=32128, emb_dim=8, num_heads=4, head_dim=3, mlp_dim=16)
    depths = dict(num_encoder_layers=2, num_decoder_layers=2, mlp_activations=("gelu", "linear"))
    assert config == T5Config(**sizes, **depths)
    summary = json.loads((t5x_testdata / "test_t5_tiny.summary.json").read_text())
    params = by_path(load(path, like(T5LM(config))))
    targets = {name for name in summary if name.startswith("optimizer/target/")}
    assert targets == {f"optimizer/target/{name}" for name in params}
    for name, value in params.items():
        expected = summary[f"optimizer/target/{name}"]
        assert list(value.shape) == expected["shape"]
        value = np.asarray(value, np.float64)
        np.testing.assert_allclose(np.abs(value).sum(), expected["abs_sum"], rtol=1e-6)
        np.testing.assert_array_equal(value.ravel()[:3], np.float32(expected["first"]))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["legacy", "orbax"])
def test_adafactor_slots(golden, model, kind):
    checkpoint = open_checkpoint(golden / f"checkpoints/{model}_{kind}/checkpoint_3")
    saved = np.load(golden / model / "adafactor/finetune_state_after_3.npz")
    assert checkpoint.step == 3 and set(checkpoint.slots) == set(saved)
    for name, leaf in checkpoint.slots.items():
        np.testing.assert_array_equal(leaf.value(), saved[name], name)
    shapes = jax.eval_shape(Adafactor(0.001).init, like(network(golden, model)))
    ours = {name: leaf.shape for name, leaf in by_path(shapes.param_states).items()}
    assert ours == {name: leaf.shape for name, leaf in checkpoint.slots.items()}


def test_t5x_format_is_written_as_t5x_writes_it(golden, tmp_path):
    """Same index, same arrays, slots and step, in a checkpoint that T5X wrote and ours of it."""
    source = golden / "checkpoints/t5_1_1_legacy/checkpoint_3"
    convert.plan(source, Target(format="t5x", keep_slots=True)).write(tmp_path / "checkpoint_3")
    theirs, ours = (
        serialization.msgpack_restore((path / "checkpoint").read_bytes())
        for path in (source, tmp_path / "checkpoint_3")
    )
    jax.tree.map(assert_same_entry, theirs, ours)
    for array in source.glob("*/.zarray"):
        there = json.loads(array.read_text())
        here = json.loads((tmp_path / "checkpoint_3" / array.parent.name / ".zarray").read_text())
        assert here == there, array.parent.name
    one, other = (flatten(open_checkpoint(p)) for p in (source, tmp_path / "checkpoint_3"))
    assert set(one) == set(other)
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf.value(), other[name].value(), name)


def assert_same_entry(theirs, ours):
    if isinstance(theirs, np.ndarray):
        np.testing.assert_array_equal(theirs, ours)
    else:
        assert theirs == ours


def flatten(checkpoint):
    return {**checkpoint.parameters, **checkpoint.slots}
