"""Names of topologies, and what is said of those that nobody knows."""

import jax
import pytest

from po_jax.planning import chips
from po_jax.planning.chips import Topology


@pytest.mark.parametrize(
    ("text", "count", "islands"),
    [("v5p:4x4x4", 64, 1), ("v5e:16x16", 256, 1), ("h100:8", 8, 1), ("h100:4x8", 32, 4)],
)
def test_topologies_by_name(text, count, islands):
    topology = Topology.parse(text)
    assert (topology.chips, topology.islands, str(topology)) == (count, islands, text)


def test_slices_are_islands():
    topology = Topology.parse("v5e:4x4", slices=3)
    assert (topology.chips, topology.islands) == (48, 3)


def test_unknown_topologies_name_the_known():
    with pytest.raises(ValueError, match="one of v4, v5e, v5p, .* got 'v5:4x4'. Nearest: v5"):
        Topology.parse("v5:4x4")
    for text in ("v5p", "v5p:4by4", "v5p:"):
        with pytest.raises(ValueError, match=f"such as v5p:4x4x4, .* got '{text}'"):
            Topology.parse(text)


@pytest.mark.parametrize(("text", "what"), [("v5p:4x4x4", "libtpu"), ("h100:8", "CUDA plugin")])
def test_a_missing_compiler_is_named_with_the_extra(text, what, monkeypatch):
    monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"expected .*{what}.* pip install 'po_jax\[plan\]'"):
        Topology.parse(text).devices()


def test_more_cpus_than_there_are():
    jax.devices()  # counts them, once and for all
    with pytest.raises(ValueError, match="at least 9 CPU devices, got 8"):
        Topology.parse("cpu:9").devices()
