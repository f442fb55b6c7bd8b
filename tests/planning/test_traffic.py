"""What programs move, against sums by hand on texts as XLA writes them, and compiled ones."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from po_jax.planning import traffic as counting
from po_jax.planning.hlo import Program
from po_jax.planning.traffic import traffic

LOOP = """
HloModule jit_f, is_scheduled=true

%body (param.1: (s32[], bf16[6,4,8], f32[4,8])) -> (s32[], bf16[6,4,8], f32[4,8]) {
  %param.1 = (s32[], bf16[6,4,8]{2,1,0:T(8,128)(2,1)}, f32[4,8]{1,0}) parameter(0)
  %index = s32[]{:T(128)} get-tuple-element(%param.1), index=0
  %all = bf16[6,4,8]{2,1,0:T(8,128)(2,1)} get-tuple-element(%param.1), index=1
  %sum = f32[4,8]{1,0} get-tuple-element(%param.1), index=2
  %fusion.1 = f32[4,8]{1,0} fusion(%all, %index, %sum), kind=kLoop, calls=%slice_and_add
  %all-reduce.1 = f32[4,8]{1,0} all-reduce(%fusion.1), replica_groups=[2,4]<=[8], to_apply=%add
  %fast = f32[4,8]{1,0:T(8,128)S(1)} copy(%all-reduce.1)
  ROOT %tuple.1 = (s32[], bf16[6,4,8]{2,1,0}, f32[4,8]{1,0}) tuple(%index, %all, %all-reduce.1)
}

%slice_and_add (p.0: bf16[6,4,8], p.1: s32[], p.2: f32[4,8]) -> f32[4,8] {
  %p.0 = bf16[6,4,8]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %p.2 = f32[4,8]{1,0} parameter(2)
  %one = bf16[1,4,8]{2,1,0} dynamic-slice(%p.0, %p.1), dynamic_slice_sizes={1,4,8}
  %wide = f32[4,8]{1,0} convert(%one)
  ROOT %total = f32[4,8]{1,0} add(%wide, %p.2)
}

%condition (param.2: (s32[], bf16[6,4,8], f32[4,8])) -> pred[] {
  %param.2 = (s32[], bf16[6,4,8]{2,1,0}, f32[4,8]{1,0}) parameter(0)
  %trips = s32[]{:T(128)} constant(6)
  %at = s32[] get-tuple-element(%param.2), index=0
  ROOT %less = pred[] compare(%at, %trips), direction=LT
}

ENTRY %main (x: (s32[], bf16[6,4,8], f32[4,8])) -> f32[4,8] {
  %x = (s32[], bf16[6,4,8]{2,1,0}, f32[4,8]{1,0}) parameter(0)
  %loop = (s32[], bf16[6,4,8]{2,1,0}, f32[4,8]{1,0}) while(%x), condition=%condition, body=%body
  ROOT %result = f32[4,8]{1,0} get-tuple-element(%loop), index=2
}
"""


def test_a_loop_over_layers():
    """Six times: a slice of 64 bytes, an index of 4, two arrays of 128; then 128 each for the
    reduction's two ends and for the copy, whose other end is not in main memory."""
    found = traffic(Program.parse(LOOP), chips=8)
    fusion, reduction, copy = 64 + 4 + 128 + 128, 128 + 128, 128
    assert found.memory == 6 * (fusion + reduction + copy)
    assert set(found.collectives) == {"all-reduce"}
    reduced = found.collectives["all-reduce"]
    # A ring of 4 sends every part 3 times for the sum and 3 times for its result.
    assert (reduced.calls, reduced.bytes, reduced.largest) == (6, 6 * 2 * 128 * 3 / 4, 128)
    assert found.sent == reduced.bytes and found.sent_far == 0


@pytest.mark.parametrize(
    ("attributes", "group"),
    [
        ("replica_groups={{0,3},{1,2}}, x", [0, 3]),
        ("replica_groups=[2,4]<=[8], x", [0, 1, 2, 3]),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, x", [0, 4]),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}, x", [0, 1, 4, 5]),
        ("replica_groups=mesh['a'=2,'b'=2], x", [0, 1, 2, 3]),
        ("source_target_pairs={{0,5},{5,0}}", [0, 5]),
        ("replica_groups={}", list(range(8))),
    ],
)
def test_the_forms_of_groups(attributes, group):
    assert counting._first_group(attributes, 8) == group


def test_what_crosses_slices_is_told_apart():
    near, far = (traffic(Program.parse(LOOP), 8, slices) for slices in (2, 4))
    assert near.sent > 0 and near.sent_far == 0  # groups of 4 neighbours lie on one slice of 4
    assert far.sent == 0 and far.sent_far == near.sent


def test_an_array_updated_in_place_moves_only_the_update():
    def write(buffer, row):
        return jax.lax.dynamic_update_slice(buffer, 2 * row[None], (3, 0))

    buffer, row = jnp.ones((50, 128)), jnp.ones(128)
    compiled = jax.jit(write, donate_argnums=0).lower(buffer, row).compile()
    found = traffic(Program.parse(compiled.as_text()), chips=1)
    assert 2 * 128 * 4 <= found.memory <= 4 * 128 * 4 < buffer.nbytes


def test_a_compiled_scan_and_its_collectives():
    """Seven products of sharded rows with spread weights: a gather of each, on 8 devices."""
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    spread = NamedSharding(mesh, P(None, "data"))
    weights = jax.ShapeDtypeStruct((7, 16, 16), jnp.float32, sharding=spread)
    rows = jax.ShapeDtypeStruct((24, 16), jnp.float32, sharding=NamedSharding(mesh, P("data")))

    def f(weights, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    compiled = jax.jit(f, out_shardings=rows.sharding).lower(weights, rows).compile()
    found = traffic(Program.parse(compiled.as_text()), chips=8)
    sent = found.sent / (7 * 16 * 16 * 4 * 7 / 8)
    assert sent == pytest.approx(1.0)
