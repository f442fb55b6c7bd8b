"""With T5X importable: T5X itself reads what we write for it. It is on no package index."""

import jax
import numpy as np
import pytest

from po_jax.checkpoints import convert
from po_jax.checkpoints.convert import Target

t5x_checkpoints = pytest.importorskip(
    "t5x.checkpoints", reason="needs T5X, which no package index holds", exc_type=ImportError
)


def read(path):
    tree = t5x_checkpoints.load_t5x_checkpoint(str(path))
    keyed, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): np.asarray(v) for k, v in keyed}


def test_t5x_reads_our_conversion_of_hugging_face(small, tmp_path):
    convert.plan(small.directory, Target(format="t5x")).write(tmp_path / "checkpoint_0")
    found = read(tmp_path / "checkpoint_0")
    assert found.keys() == {"state/step", *(f"target/{name}" for name in small.params)}
    for name, value in small.params.items():
        np.testing.assert_array_equal(found[f"target/{name}"], value, name)


@pytest.mark.parametrize("tree", ["t5_1_1", "t5_1_1_scalable"])
def test_t5x_reads_our_copy_of_its_own(golden, tmp_path, tree):
    """From T5X's Orbax checkpoint to its legacy format, slots and all."""
    source = golden / "checkpoints" / f"{tree}_orbax"
    scanned = tree.endswith("scalable")
    conversion = convert.plan(source, Target(format="t5x", scanned=scanned, keep_slots=True))
    conversion.write(tmp_path / "checkpoint_3")
    found = read(tmp_path / "checkpoint_3")
    expected = read(golden / "checkpoints" / f"{tree}_legacy" / "checkpoint_3")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, name)
