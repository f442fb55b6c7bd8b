"""Our safetensors files against the format's own library, and damaged ones."""

import json
import os

from etils import epath
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as library

from po_jax.checkpoints import safetensors
from po_jax.checkpoints.leaves import from_array

RNG = np.random.default_rng(2)
ARRAYS = {
    "shared.weight": RNG.normal(size=(5, 3)).astype(np.float32),
    "half": RNG.normal(size=(2, 7)).astype(ml_dtypes.bfloat16),
    "cube": RNG.normal(size=(2, 3, 5)).astype(np.float16),
    "scalar": np.asarray(2.5, np.float32),
}


def leaves():
    return {name: from_array(value, name) for name, value in ARRAYS.items()}


def assert_arrays(found):
    assert set(found) == set(ARRAYS)
    for name, leaf in found.items():
        assert leaf.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(leaf.value(), ARRAYS[name])


def test_the_library_reads_ours(tmp_path):
    safetensors.write(epath.Path(tmp_path), leaves())
    found = library.load_file(tmp_path / "model.safetensors")
    assert set(found) == set(ARRAYS)
    for name, value in found.items():
        np.testing.assert_array_equal(value, ARRAYS[name])
    assert_arrays(safetensors.read(epath.Path(tmp_path)))


def test_we_read_the_library_s(tmp_path):
    library.save_file(ARRAYS, tmp_path / "model.safetensors", metadata={"format": "np"})
    found = safetensors.read(epath.Path(tmp_path))
    assert_arrays(found)
    block = (slice(1, 2), slice(0, 2), slice(2, 5))
    np.testing.assert_array_equal(found["cube"].read(block), ARRAYS["cube"][block])


def test_shards(tmp_path):
    directory = epath.Path(tmp_path)
    safetensors.write(directory, leaves(), shard_bytes=70)
    index = json.loads((directory / safetensors.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in ARRAYS.values())
    files = sorted(path.name for path in directory.glob("*.safetensors"))
    assert len(files) == 3 and files == sorted(set(index["weight_map"].values()))
    for name, file in index["weight_map"].items():
        assert name in library.load_file(directory / file)
    assert_arrays(safetensors.read(directory))


def truncate(file):
    os.truncate(file, file.stat().length - 1)


def cut_short(file):
    file.write_bytes(b"\x00\x00")


def replace(old, new):
    return lambda file: file.write_bytes(file.read_bytes().replace(old, new))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"expected \d+ bytes by its header, got \d+: the file is truncated"),
        (cut_short, "expected a safetensors header of 2 to .* bytes, got 0: the file is truncated"),
        (lambda file: file.write_bytes(b"\x80\x04" * 99), "header .* or of another format"),
        (lambda file: file.unlink(), "a shard is missing"),
        (replace(b'"cube"', b'"tube"'), "expected the array 'cube' that model.safetensors.index"),
        (replace(b'"F16"', b'"F77"'), "cube: expected a dtype of .* got 'F77'"),
        (replace(b"[2, 3, 5]", b"[2, 3, 6]"), r"cube: expected 72 bytes .*\(2, 3, 6\).* got 60"),
        (replace(b'{"', b'["'), "expected a JSON header"),
    ],
)
def test_damaged_files(tmp_path, damage, message):
    directory = epath.Path(tmp_path)
    safetensors.write(directory, leaves(), shard_bytes=70)
    index = json.loads((directory / safetensors.INDEX).read_text())
    file = directory / index["weight_map"]["cube"]
    damage(file)
    with pytest.raises(ValueError, match=message) as error:
        safetensors.read(directory)
    assert str(error.value).startswith(str(file))


def test_no_weights(tmp_path):
    with pytest.raises(ValueError, match="expected model.safetensors or .*index.json, got neither"):
        safetensors.read(epath.Path(tmp_path))
