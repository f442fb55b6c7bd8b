"""Whatever the path holds: recognised, read into its shards, or refused in words."""

import dataclasses
import json
import os

from etils import epath
from flax import serialization
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import orbax.checkpoint as ocp
import pytest

from po_jax.checkpoints import convert, safetensors
from po_jax.checkpoints.convert import Target
from po_jax.checkpoints.leaves import from_array
from po_jax.checkpoints.load import load, open_checkpoint, place
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.training.optimizers import Adafactor
from po_jax.training.state import TrainState


def nested(params):
    tree = {}
    for name, value in params.items():
        *parents, key = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return tree


def assert_params(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, nested(expected))


def test_our_own_checkpoints_with_their_optimiser(small, like, tmp_path):
    params = jax.tree.map(jnp.asarray, nested(small.params))
    state = TrainState.create(params, Adafactor(0.01))
    slots = jax.tree.map(lambda slot: slot + 3, state.optimizer_state)
    manager = CheckpointManager(tmp_path)
    for step in (9, 10):  # 10 is the latest, though it sorts before 9
        manager.save(step, state.replace(step=jnp.int32(step), optimizer_state=slots))
    manager.close()

    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "orbax"
    assert (checkpoint.path.name, checkpoint.step) == ("checkpoint_10", 10)
    assert_params(load(tmp_path, like(small.config)), small.params)
    found = {name: leaf.value() for name, leaf in checkpoint.slots.items()}
    expected = jax.tree_util.tree_leaves_with_path(slots.param_states)
    assert len(found) == len(expected) > 0
    for path, value in expected:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        np.testing.assert_array_equal(found[name], value, name)


def test_a_step_of_float32_as_resumed_runs_of_t5x_have_it(small, tmp_path):
    state = {"target": nested(small.params), "state": {"step": np.float32(4)}}
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).save(tmp_path / "checkpoint_4", state)
    assert open_checkpoint(tmp_path).step == 4


@pytest.mark.parametrize("zarr3", [False, True])
@pytest.mark.parametrize("ocdbt", [False, True])
def test_layouts_of_orbax(small, like, tmp_path, ocdbt, zarr3):
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)
    state = {"target": nested(small.params), "state": {"step": 4}}
    ocp.Checkpointer(handler).save(tmp_path / "checkpoint_4", state)
    assert open_checkpoint(tmp_path).step == 4
    assert_params(load(tmp_path / "checkpoint_4", like(small.config)), small.params)


def test_layout_of_the_first_orbax(small, like, tmp_path):
    """Directories of zarr, named by placeholders in a msgpack file."""
    convert.plan(small.directory, Target(format="t5x")).write(tmp_path / "old")
    index = tmp_path / "old" / "checkpoint"
    content = serialization.msgpack_restore(index.read_bytes())

    def placeholder(node):
        if isinstance(node, dict) and "kvstore" in node:
            return "PLACEHOLDER://" + node["kvstore"]["path"].rstrip("/")
        if isinstance(node, dict):
            return {key: placeholder(value) for key, value in node.items()}
        return node

    tree = placeholder(content["optimizer"])
    index.write_bytes(serialization.msgpack_serialize({"_optimizer": tree, "flax_mutables": None}))
    assert_params(load(tmp_path / "old", like(small.config)), small.params)


def sharded(leaf):
    """Rows over two devices and columns over two, where both are even; else whole everywhere."""
    mesh = Mesh(np.asarray(jax.devices()[:4]).reshape(2, 2), ("data", "model"))
    even = len(leaf.shape) == 2 and not any(n % 2 for n in leaf.shape)
    sharding = NamedSharding(mesh, PartitionSpec("model", "data") if even else PartitionSpec())
    return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=sharding)


@pytest.mark.parametrize("format", ["hugging_face", "t5x"])
def test_shards(small, like, tmp_path, format):
    convert.plan(small.directory, Target(format=format)).write(tmp_path / "model")
    wanted = jax.tree.map(sharded, like(small.config))
    params = load(tmp_path / "model", wanted)
    for found, target in zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True):
        assert found.sharding == target.sharding and found.dtype == jnp.bfloat16
    rounded = {name: value.astype(jnp.bfloat16) for name, value in small.params.items()}
    assert_params(params, rounded)


def test_each_shard_is_read_once():
    values = {"kernel": np.ones((6, 10), np.float32), "scale": np.ones((7,), np.float32)}
    reads = []

    def recorded(name, value):
        source = from_array(value, name)

        def read(block):
            reads.append((name, tuple((part.start, part.stop) for part in block)))
            return source.read(block)

        return dataclasses.replace(source, read=read)

    leaves = {name: recorded(name, value) for name, value in values.items()}
    place(leaves, jax.tree.map(sharded, values))
    quarters = [
        ("kernel", (rows, columns)) for rows in ((0, 3), (3, 6)) for columns in ((0, 5), (5, 10))
    ]
    assert sorted(reads) == sorted([*quarters, ("scale", ((0, 7),))])


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="expected a Hugging Face directory .* got no such path"):
        open_checkpoint(tmp_path / "none")
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"got a directory of \['pytorch_model.bin'\]"):
        open_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="pytorch_model.bin: expected a complete msgpack index"):
        open_checkpoint(tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "longt5"},
            r"config.json: .*\['mt5', 't5', 't5gemma', 't5gemma2', 'umt5'\], got 'longt5'",
        ),
        ({"feed_forward_proj": "gated-swish"}, "feed_forward_proj in .* got 'gated-swish'"),
        ({"layer_norm_epsilon": 1e-5}, r"layer_norm_epsilon in \[1e-06\], got 1e-05"),
        ({"d_kv": None}, r"expected the options \['d_kv'\], got none"),
        ({"num_layers": 3}, "9 missing .*encoder.block.2.layer.0.SelfAttention.k.weight"),
        ({"tie_word_embeddings": True}, "lm_head.weight: expected a copy of the shared embedding"),
    ],
)
def test_configs_that_do_not_fit(small, tmp_path, change, message):
    directory = changed(small, tmp_path, change)
    with pytest.raises(ValueError, match=message):
        open_checkpoint(directory)


def changed(small, tmp_path, change):
    directory = epath.Path(tmp_path) / "changed"
    directory.mkdir()
    for file in small.directory.iterdir():
        file.copy(directory / file.name)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | change))
    return directory


def test_the_embedding_under_another_name(small, like, tmp_path):
    """Files without `shared.weight` (MADLAD-400's), and with copies of it under other names."""
    directory = changed(small, tmp_path, {})
    tensors = dict(safetensors.read(small.directory))
    tensors["decoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    safetensors.write(directory, tensors)
    assert_params(load(directory, like(small.config)), small.params)
    tensors["encoder.embed_tokens.weight"] = tensors["lm_head.weight"]
    safetensors.write(directory, tensors)
    with pytest.raises(ValueError, match="embed_tokens.weight: expected a copy"):
        open_checkpoint(directory)


@pytest.mark.parametrize("damage", ["array", "chunk", "truncated", "index"])
def test_damaged_t5x_checkpoints(small, like, tmp_path, damage):
    path = tmp_path / "model"
    convert.plan(small.directory, Target(format="t5x")).write(path)
    array = path / "target.encoder.layers_1.mlp.wo.kernel"
    if damage == "array":
        (array / ".zarray").unlink()
    elif damage == "chunk":
        (array / "0.0").unlink()  # zarr's own rule would read zeros here
    elif damage == "truncated":
        os.truncate(array / "0.0", (array / "0.0").stat().st_size // 2)
    else:
        os.truncate(path / "checkpoint", 100)
    where = "model/checkpoint" if damage == "index" else "target.encoder.layers_1.mlp.wo.kernel"
    with pytest.raises(ValueError, match=f"{where}: expected a "):
        load(path, like(small.config))
