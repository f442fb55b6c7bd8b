"""Meshes, rules and shardings, against T5X's rules and on eight fake devices."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import optax
import pytest

from po_jax import partitioning
from po_jax.partitioning import make_partitioner, shard
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.optimizers import Adafactor, adamw

SMALL = dict(
    vocab_size=24,
    emb_dim=8,
    num_heads=4,
    head_dim=3,
    mlp_dim=16,
    num_encoder_layers=2,
    num_decoder_layers=2,
)


def variables(**options):
    model = T5LM(T5Config(**SMALL, **options))
    return jax.eval_shape(model.init, jax.random.key(0)), model.parameter_axes()


def test_mesh_shares_out_all_devices():
    assert dict(partitioning.make_mesh(4).shape) == {"data": 2, "model": 4}
    assert dict(partitioning.make_mesh(1, jax.devices()[:2]).shape) == {"data": 2, "model": 1}
    for bad in (0, 3):
        with pytest.raises(ValueError, match=f"divide 8 devices, got {bad}"):
            partitioning.make_mesh(bad)


@pytest.mark.parametrize(
    ("dims", "kernel", "activation"),
    [
        ((1, 1), P(None, "model"), P("data", None, None)),
        ((2, 1), P(None, "model"), P("data", None, "model")),
        ((1, 2), P("data", "model"), P("data", None, None)),
        ((2, 2), P("data", "model"), P("data", None, "model")),
    ],
)
def test_rules_are_those_of_t5x(dims, kernel, activation):
    """A feed-forward kernel and the residual stream under T5X's four sets of standard rules."""
    partitioner = make_partitioner(2, *dims)
    assert partitioner.sharding((8, 16), ("embed", "mlp")).spec == kernel
    assert partitioner.sharding((4, 5, 8), ("batch", "length", "embed")).spec == activation
    assert partitioner.sharding((24, 8), ("vocab", "embed")).spec[0] == "model"


def test_rules_of_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="parameter_dims 1 or 2, got 3"):
        partitioning.logical_axis_rules(1, 3)


def test_an_axis_the_mesh_cannot_divide_stays_whole():
    partitioner = make_partitioner(4)
    assert partitioner.sharding((6, 32), ("heads", "relpos_buckets")).spec == P(None, None)
    assert partitioner.sharding((8, 32), ("heads", "relpos_buckets")).spec == P("model", None)


@pytest.mark.parametrize("scanned", [False, True])
def test_every_parameter_has_names_that_the_rules_know(scanned):
    params, names = variables(scan_layers=scanned, shared_relative_bias=not scanned)
    assert jax.tree.structure(params).flatten_up_to(names)
    jax.tree.map(lambda p, n: np.testing.assert_equal(len(n), p.ndim), params, names)
    kernel = names["encoder"]["encoder" if scanned else "layers_0"]["mlp"]["wi"]["kernel"]
    assert kernel == (("embed", "layers", "mlp") if scanned else ("embed", "mlp"))


@pytest.mark.parametrize("scanned", [False, True])
def test_axis_metadata_undoes_axis_names(scanned):
    model = T5LM(T5Config(**SMALL, scan_layers=scanned, shared_relative_bias=not scanned))
    tokens = jnp.ones((2, 3), int)
    variables = jax.eval_shape(model.module.init, jax.random.key(0), tokens, tokens)
    of_flax = variables["params_axes"]
    names = partitioning.axis_names(of_flax)
    again = partitioning.axis_metadata(names)
    assert again == of_flax
    assert partitioning.axis_names(again) == names == model.parameter_axes()


def test_slots_of_optimisers_are_sharded_like_their_parameters():
    params, names = variables(scan_layers=True, shared_relative_bias=False)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), Adafactor(0.1, names, beta1=0.9), adamw(0.1, names)
    )
    state = jax.eval_shape(optimizer.init, params)
    slots = partitioning.optimizer_axis_names(state, params, names)
    jax.tree.map(lambda s, n: np.testing.assert_equal(len(n), s.ndim), state, slots)

    def of(tree):
        return tree["decoder"]["decoder"]["self_attention"]["out"]["kernel"]

    factored, moments = slots[1], slots[2][0]
    assert of(names) == ("heads", "layers", "kv", "embed")
    assert of(factored.param_states).m == of(names)
    assert of(factored.param_states).v_row == ("layers", "embed")
    assert of(factored.param_states).v_col == ("heads", "layers", "kv")
    assert of(factored.param_states).v == (None,)
    assert of(moments.mu) == of(moments.nu) == of(names)
    assert factored.step == moments.count == ()


def test_batches_are_distributed_over_the_data_axis():
    partitioner = make_partitioner(2)
    batch = partitioner.distribute({"tokens": np.arange(24).reshape(8, 3), "label": np.ones(8)})
    assert batch["tokens"].sharding.spec == P("data")
    assert batch["tokens"].addressable_shards[0].data.shape == (2, 3)
    np.testing.assert_array_equal(batch["tokens"], np.arange(24).reshape(8, 3))


@pytest.mark.parametrize("num_partitions", [1, 4])
def test_collecting_undoes_distributing(num_partitions):
    """On meshes of (8, 1) and (2, 4) devices; rows that devices share come once."""
    partitioner = make_partitioner(num_partitions)
    tokens = np.arange(48, dtype=np.int32).reshape(16, 3)
    rows = {"tokens": tokens, "pair": (np.arange(16) > 5, np.ones((16, 2), np.float32))}
    found = partitioning.collect(partitioner.distribute(rows))
    assert jax.tree.structure(found) == jax.tree.structure(rows)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(rows), strict=True):
        assert isinstance(x, np.ndarray)
        np.testing.assert_array_equal(x, y, strict=True)


def test_collecting_takes_whatever_layout():
    partitioner = make_partitioner(4)
    x = np.arange(64, dtype=np.float32).reshape(8, 8)
    layouts = (P(), P("data"), P("model"), P(None, "model"), P("data", "model"))
    shardings = [jax.sharding.NamedSharding(partitioner.mesh, spec) for spec in layouts]
    found = partitioning.collect([x, *(jax.device_put(x, sharding) for sharding in shardings)])
    assert found[0] is x
    for collected in found:
        np.testing.assert_array_equal(collected, x, strict=True)


def test_what_is_on_the_devices_stays_there():
    partitioner = make_partitioner(2)
    x = jax.device_put(jnp.arange(6), partitioner.replicated)
    assert partitioner.distribute({"x": x})["x"] is x


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (7, 3, [([0, 1, 2], [1, 1, 1]), ([3, 4, 5], [1, 1, 1]), ([6, 0, 1], [1, 0, 0])]),
        (6, 3, [([0, 1, 2], [1, 1, 1]), ([3, 4, 5], [1, 1, 1])]),
        (2, 5, [([0, 1, 0, 1, 0], [1, 1, 0, 0, 0])]),
        (0, 3, []),
    ],
)
def test_batches_are_filled_up_by_the_first_rows(count, size, expected):
    batches = partitioning.filled_batches(count, size)
    assert [(rows.tolist(), valid.tolist()) for rows, valid in batches] == expected


def test_a_batch_the_mesh_cannot_share_out_is_refused():
    partitioner = make_partitioner(2)
    with pytest.raises(ValueError, match=r"multiple of 4 \(the mesh's data axis\) x 1 .* got 6"):
        partitioner.distribute(np.zeros((6, 3)))
    with pytest.raises(ValueError, match=r"x 3 \(micro-batches\), got 8"):
        partitioner.check_batch(8, micro_batches=3)


def test_activations_are_constrained_inside_and_free_outside():
    partitioner = make_partitioner(2, activation_dims=2)

    def double(x):
        return shard(2 * x, "batch", "length", "embed")

    def double_on_the_mesh(x):
        with partitioner.activate():
            return double(x)

    x = jax.device_put(jnp.ones((8, 3, 6)), partitioner.replicated)
    assert jax.jit(double_on_the_mesh)(x).sharding.spec == P("data", None, "model")
    assert jax.jit(double)(x).sharding.is_fully_replicated


class Slices:
    """Devices of a TPU that is not there, 2 x 2 x 1 chips on each of two slices."""

    def __init__(self, index):
        self.id = self.process_index = index
        self.slice_index, within = divmod(index, 4)
        self.coords = (within % 2, within // 2, 0)
        self.core_on_chip, self.num_cores = 0, 1
        self.platform, self.device_kind = "tpu", "TPU v5 lite"


@pytest.fixture(scope="module")
def slices():
    return [Slices(index) for index in range(8)]


def test_copies_of_the_model_lie_within_a_slice(slices):
    for num_partitions in (1, 2, 4):
        mesh = partitioning.make_mesh(num_partitions, slices[::-1])
        assert dict(mesh.shape) == {
            "slice": 2,
            "data": 4 // num_partitions,
            "model": num_partitions,
        }
        for index, grid in enumerate(mesh.devices):
            assert {device.slice_index for device in grid.flat} == {index}
    with pytest.raises(
        ValueError, match="divide 4 devices of each slice, got 8; 1, 2 or 4 would do"
    ):
        partitioning.make_mesh(8, slices)


def test_rows_lie_over_slices_and_parameters_within_each_or_over_all(slices):
    kernel, rows = ("embed", "mlp"), P(("slice", "data"))
    within = make_partitioner(2, parameter_dims=2, devices=slices)
    assert within.batch.spec == rows and within.copies == 4
    assert within.sharding((8, 16), kernel).spec == P("data", "model")
    over_all = make_partitioner(2, parameter_dims=2, across_slices=True, devices=slices)
    assert over_all.batch.spec == rows
    assert over_all.sharding((8, 16), kernel).spec == P(("slice", "data"), "model")
    assert over_all.sharding((6, 16), kernel).spec == P(None, "model")  # 4 copies; 6 / 4 is none
    for partitioner in (within, over_all):
        activation = partitioner.sharding((8, 5, 8), ("batch", "length", "embed"))
        assert activation.spec == P(("slice", "data"), None, None)
        with partitioning.nn.logical_axis_rules(partitioner.rules), partitioning.whole_parameters():
            assert partitioning.nn.logical_to_mesh_axes(kernel) == P(None, "model")


def test_results_do_not_depend_on_slices(getkey):
    """The mean over rows, and a product with spread parameters, on a mesh of (2, 2, 2) devices."""
    mesh = jax.sharding.Mesh(np.reshape(jax.devices(), (2, 2, 2)), ("slice", "data", "model"))
    rules = partitioning.logical_axis_rules(1, 2, slices=2, across_slices=True)
    partitioner = partitioning.Partitioner(mesh, rules)
    x, kernel = np.arange(24.0).reshape(8, 3), np.arange(12.0).reshape(3, 4)
    rows = partitioner.distribute(x)
    assert rows.addressable_shards[0].data.shape == (2, 3)
    np.testing.assert_array_equal(partitioning.collect(rows), x)
    placed = jax.device_put(kernel, partitioner.sharding((3, 4), ("embed", "mlp")))
    with partitioner.activate():
        found = jax.jit(lambda x, w: shard(x @ w, "batch", "mlp"))(rows, placed)
    np.testing.assert_array_equal(found, x @ kernel)


def test_sizes_that_would_do_are_named():
    partitioner = make_partitioner(2)
    with pytest.raises(ValueError, match="got 6; 4 or 8 would do"):
        partitioner.check_batch(6)
    with pytest.raises(ValueError, match=r"4 .* x 2 \(micro-batches\), got 3; 8 would do"):
        partitioner.check_batch(3, micro_batches=2)
    with pytest.raises(ValueError, match="divide 8 devices, got 3; 1, 2, 4 or 8 would do"):
        partitioning.make_mesh(3)
