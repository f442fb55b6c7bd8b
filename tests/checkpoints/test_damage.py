"""What is no number, no step, no index: a sentence that names the file, and no traceback."""

import json
import shutil
import struct

from etils import epath
from flax import serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch import convert as program
from po_jax.checkpoints import convert, safetensors
from po_jax.checkpoints.convert import Target
from po_jax.checkpoints.leaves import from_array
from po_jax.checkpoints.load import load, open_checkpoint
from po_jax.checkpoints.manager import CheckpointManager

NAME = "encoder.block.1.layer.1.DenseReluDense.wo.weight"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("format", convert.FORMATS)
def test_a_value_that_is_no_number(small, like, tmp_path, capsys, format, bad):
    source = epath.Path(tmp_path) / "source"
    source.mkdir()
    (small.directory / "config.json").copy(source / "config.json")
    tensors = dict(safetensors.read(small.directory))
    value = tensors[NAME].value().copy()
    value[3, 5] = bad
    safetensors.write(source, tensors | {NAME: from_array(value, NAME)})
    for dtype in ((), ("--dtype=bfloat16",)):
        status = program.main(
            [f"--from={source}", f"--to={tmp_path}/out", f"--format={format}", *dtype]
        )
        told = capsys.readouterr().err
        assert status == 1 and told.count("\n") == 1
        assert f"model.safetensors: {NAME}: expected finite numbers, got {bad} and 0 more" in told
    assert list(tmp_path.iterdir()) == [tmp_path / "source"]
    with pytest.raises(ValueError, match=f"{NAME}: expected finite numbers"):
        load(source, like(small.config))


@pytest.fixture
def t5x(small, tmp_path):
    """A checkpoint of T5X's, and a function that rewrites its index."""
    folder = tmp_path / "t5x"
    convert.plan(small.directory, Target(format="t5x")).write(folder)
    index = folder / "checkpoint"

    def rewrite(change):
        content = serialization.msgpack_restore(index.read_bytes())
        change(content["optimizer"])
        index.write_bytes(serialization.msgpack_serialize(content))

    return folder, rewrite


@pytest.mark.parametrize(
    "kvstore", [None, {}, {"path": ""}, {"path": 3}, "target.encoder", {"driver": "file"}]
)
def test_an_index_without_kvstore(t5x, kvstore):
    folder, rewrite = t5x

    def change(tree):
        entry = tree["target"]["encoder"]["encoder_norm"]["scale"]
        del entry["kvstore"]
        if kvstore is not None:
            entry["kvstore"] = kvstore

    rewrite(change)
    message = "t5x/checkpoint: expected target/encoder/encoder_norm/scale to name its array in kvs"
    with pytest.raises(ValueError, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize("step", ["ten", 2.5, -1, np.arange(2), b"7"])
def test_a_step_that_is_no_number(t5x, step):
    folder, rewrite = t5x
    rewrite(lambda tree: tree["state"].update(step=step))
    with pytest.raises(ValueError, match="checkpoint: state/step: expected a step, a whole number"):
        open_checkpoint(folder)


def test_folders_whose_step_is_no_number(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(4, {"params": {"kernel": jnp.ones(3)}})
    manager.close()
    for name in ("checkpoint_ten", "checkpoint_", "checkpoint_5.5", "checkpoint_-9", "latest"):
        shutil.copytree(tmp_path / "checkpoint_4", tmp_path / name)
    assert open_checkpoint(tmp_path).step == 0 and open_checkpoint(tmp_path).path.name[-1] == "4"
    assert CheckpointManager(tmp_path).steps == [4]


DEEP = "[" * 100_000


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", DEEP, '{"a": ' * 100_000, "\xff"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json", "_METADATA"])
def test_json_that_is_no_object(small, tmp_path, file, text):
    if file != "_METADATA":
        for name in ("config.json", "model.safetensors"):
            (small.directory / name).copy(tmp_path / name)
    (tmp_path / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"{file}: expected (a JSON|Orbax's)") as raised:
        open_checkpoint(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"tree_metadata": []}, {"tree_metadata": {"a": 3}}, {"tree_metadata": {"a": {}}}],
)
def test_metadata_of_another_form(tmp_path, metadata):
    (tmp_path / "_METADATA").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="_METADATA: expected Orbax's tree metadata, got"):
        open_checkpoint(tmp_path)


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": 3},
        {"a": {**F32, "data_offsets": None}},
        {"a": {**F32, "data_offsets": [0, 8, 8]}},
        {"a": {**F32, "data_offsets": ["0", "8"]}},
        {"a": {**F32, "data_offsets": [8, 0]}},
        {"a": {**F32, "shape": "2"}},
        {"a": {**F32, "shape": [2.0]}},
        {"a": F32, "b": F32},  # Both in one place.
        {"a": {**F32, "shape": [1], "data_offsets": [4, 8]}},  # A gap before it.
    ],
)
def test_headers_of_another_form(tmp_path, header):
    text = json.dumps(header).encode()
    file = epath.Path(tmp_path) / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ValueError, match="model.safetensors: expected a header with the dtype"):
        safetensors.read_file(file)


def test_a_best_metric_that_never_comes(tmp_path):
    state = {"kernel": jnp.ones(3)}
    manager = CheckpointManager(tmp_path, best="held_out/winrate")
    manager.save(1, state)  # Without an evaluation nobody knows.
    message = (
        r"\['held_out/kl', 'held_out/win_rate'\], got 'held_out/winrate'. Nearest: held_out/win"
    )
    with pytest.raises(ValueError, match=f"{message}.*Step 2 is saved"):
        manager.save(2, state, {"held_out/win_rate": 0.5, "held_out/kl": 1.0})
    manager.close()
    again = CheckpointManager(tmp_path, keep=1, best="held_out/win_rate")
    assert again.steps[-1] == 2  # nothing is lost
    again.save(3, state, {"held_out/win_rate": 0.4})
    again.save(4, state, {"held_out/kl": 2.0})  # It may be absent at times,
    again.save(5, state, {"held_out/win_rate": np.nan})  # or no number.
    again.close()
    assert again.best_step == 2


def test_a_second_damage_at_one_step(tmp_path):
    for _ in range(2):
        manager = CheckpointManager(tmp_path)
        for step in (1, 2):
            if step not in manager.steps:
                manager.save(step, {"kernel": jnp.ones(3)})
        manager.close()
        (tmp_path / "checkpoint_2" / "state" / "_METADATA").write_text("{")
        manager = CheckpointManager(tmp_path)
        like = jax.eval_shape(lambda: {"kernel": jnp.ones(3)})
        assert manager.restore(like)[0] == 1
        manager.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint_1", "damaged_checkpoint_2", "damaged_checkpoint_2_again"]
