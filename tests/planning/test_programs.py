"""What lies between a run's programs, counted in shapes."""

import dataclasses

import jax
import pytest

from po_jax.partitioning import make_partitioner
from po_jax.planning import programs
from tests.training import small_run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_only_read_takes_what_the_network_reads(dtype):
    config = dataclasses.replace(small_run.MODEL.config, dtype=dtype)
    model = dataclasses.replace(small_run.MODEL, config=config)
    partitioner = make_partitioner(devices=jax.devices()[:1])
    params = programs._parameters(model, partitioner)
    read = programs._as_read(model, params)
    bytes_of = {"float32": 4, "bfloat16": 2}[dtype]
    wanted = sum(
        leaf.size * (4 if path[-1].key == "rel_embedding" else bytes_of)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    )
    assert programs.chip_bytes(read) == wanted
    assert jax.tree.map(lambda x: x.sharding, read) == jax.tree.map(lambda x: x.sharding, params)
