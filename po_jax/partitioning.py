"""Which device holds what: a (data, model) mesh, T5X's logical axis rules, and shardings.

Parameters and activations name their axes ("embed", "heads", ...); rules map these names to mesh
axes. Where devices lie on several slices, which only a network joins, the mesh has a first axis of
slices, and rows lie over slices and "data". Shardings can be built for a topology that is not
there.

Rows pass between host and devices here and nowhere else. On the host, every process has all rows;
`Partitioner.distribute` gives its devices theirs, `collect` makes what lies on all devices whole on
every host again.
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import math
from typing import Any

from flax import linen as nn
from flax.linen.partitioning import AxisMetadata
import jax
from jax.experimental import mesh_utils, multihost_utils
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int
import numpy as np

from po_jax import processes
from po_jax.lengths import EIGHTHS, Lengths

Names = tuple[str | None, ...]
Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

# ZeRO-3, within each slice or over all. In activations "batch" has taken the axes.
_SPREAD_PARAMETERS = (("embed", "data"), ("embed", ("slice", "data")))


def make_mesh(num_partitions: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices: axis "model" of size `num_partitions`, axis "data" of the rest.

    Where devices report several slices, each has such a mesh, and a first axis "slice" joins them.

    Args:
      num_partitions: devices that share one copy of the model, of one slice.
      devices: all devices of all processes by default; or those of a described topology.

    Raises:
      ValueError: if `num_partitions` does not divide the number of devices of a slice.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    count = len(devices) // slices
    if num_partitions < 1 or count % num_partitions:
        raise ValueError(
            f"make_mesh: expected num_partitions to divide {count} devices"
            f"{'' if slices == 1 else ' of each slice'}, got {num_partitions}; "
            f"{_listed(size for size in range(1, count + 1) if count % size == 0)} would do"
        )
    shape = (count // num_partitions, num_partitions)
    # Neighbours on the interconnect become neighbours in the mesh.
    if slices == 1:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    grid = mesh_utils.create_hybrid_device_mesh(
        (1, *shape), (slices, 1, 1), devices, allow_split_physical_axes=True
    )
    return Mesh(grid, ("slice", "data", "model"), axis_types=(AxisType.Auto,) * 3)


def _listed(numbers: Iterable[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last


def logical_axis_rules(
    activation_dims: int = 1,
    parameter_dims: int = 1,
    slices: int = 1,
    across_slices: bool = False,
) -> Rules:
    """T5X's standard rules; the first rule whose mesh axis is still free takes an axis.

    Args:
      activation_dims: 2 also shards the activations' embedding axis, over "model".
      parameter_dims: 2 also shards the parameters' embedding axis, over "data" (ZeRO-3).
      slices: of the mesh; the rows of a batch lie over all.
      across_slices: whether `parameter_dims` of 2 spreads one copy over all slices, which saves
        memory, and not a copy over each, which saves the network.

    Raises:
      ValueError: if either is neither 1 nor 2.
    """
    for name, dims in (("activation_dims", activation_dims), ("parameter_dims", parameter_dims)):
        if dims not in (1, 2):
            raise ValueError(f"logical_axis_rules: expected {name} 1 or 2, got {dims}")
    rows: str | tuple[str, ...] = "data" if slices == 1 else ("slice", "data")
    rules: list[tuple[str, str | tuple[str, ...] | None]] = [("batch", rows)]
    rules += [(name, "model") for name in ("vocab", "mlp", "heads", "joined_kv")]
    if activation_dims == 2:
        rules.append(("embed", "model"))
    if parameter_dims == 2:
        rules.append(("embed", rows if across_slices else "data"))
    return tuple(rules)


def shard(x: Array, *names: str | None) -> Array:
    """Constrains an array by its axis names, under the rules in force; nothing outside a mesh."""
    return nn.with_logical_constraint(x, names)


def row_parts() -> int:
    """Parts that the rows of a batch lie in, by the mesh and the rules in force."""
    spec = nn.logical_to_mesh_axes(("batch",))
    return _extent(jax.sharding.get_abstract_mesh(), None if spec is None else spec[0])


def _extent(mesh: Mesh | AbstractMesh, axes: str | tuple[str, ...] | None) -> int:
    """Devices along one or several axes of a mesh."""
    names = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape[name] for name in names)


def take_rows(x: Array, rows: Int[Array, "parts taken"], axis: int = 0) -> Array:
    """Some rows of each part of an axis of rows, told by their place in it; none leaves it.

    A place beyond the part is its last row's.
    """
    parts, (before, after) = len(rows), (x.shape[:axis], x.shape[axis + 1 :])
    apart = x.reshape(*before, parts, x.shape[axis] // parts, *after)
    take = functools.partial(jnp.take, axis=axis, mode="clip")
    taken = jax.vmap(take, in_axes=(axis, 0), out_axes=axis)(apart, rows)
    return taken.reshape(*before, rows.size, *after)


@contextlib.contextmanager
def whole_parameters() -> Iterator[None]:
    """While a function is traced inside, no rule spreads parameters over "data" (ZeRO-3).

    For programs that read all parameters many times, such as a decoding loop.
    """
    rules = [rule for rule in nn.get_logical_axis_rules() if rule not in _SPREAD_PARAMETERS]
    with nn.logical_axis_rules(rules):
        yield


def axis_names(params_axes: Any) -> Any:
    """The tree of parameters' axis names from Flax's `params_axes` collection.

    `{"kernel_axes": AxisMetadata(names=("embed", "mlp"))}` becomes `{"kernel": ("embed", "mlp")}`.
    """
    if not hasattr(params_axes, "items"):
        return tuple(params_axes.names)
    return {key.removesuffix("_axes"): axis_names(value) for key, value in params_axes.items()}


def axis_metadata(names: Any) -> Any:
    """Undoes `axis_names`: Flax's `params_axes`, as T5X takes them, of a tree of axis names."""
    if isinstance(names, tuple):
        return AxisMetadata(names)
    return {
        key if hasattr(value, "items") else f"{key}_axes": axis_metadata(value)
        for key, value in names.items()
    }


def optimizer_axis_names(state: Any, params: Any, names: Any) -> Any:
    """Axis names of an optimiser's state, for whatever in it has the path of a parameter.

    A slot takes the names of the parameter's axes that it kept, as told by its shape: all of them
    for a moment, some for a factored one. Anything else gets no names, and is replicated.
    """
    known = {}
    structure: Any = jax.tree.structure(params)
    for (path, param), axes in zip(
        jax.tree_util.tree_leaves_with_path(params), structure.flatten_up_to(names), strict=True
    ):
        known[_words(path)] = tuple(zip(param.shape, axes, strict=True))

    def slot_names(path, slot):
        words = _words(path)
        for start in range(len(words)):
            for stop in range(len(words), start, -1):
                if words[start:stop] in known:
                    return _kept_axes(slot.shape, known[words[start:stop]])
        return (None,) * len(slot.shape)

    return jax.tree_util.tree_map_with_path(slot_names, state)


def _words(path) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _kept_axes(shape, axes) -> Names:
    remaining = iter(axes)
    kept = tuple(
        next((name for size, name in remaining if size == wanted), None) for wanted in shape
    )
    return kept


def laid_out(shapes: Any, shardings: Any) -> Any:
    """A tree of shapes, or of arrays, as shapes with their place on the mesh."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def shardings_of(shapes: Any) -> Any:
    """The places of what is `laid_out`."""
    return jax.tree.map(lambda leaf: leaf.sharding, shapes)


def filled_batches(
    count: int, batch_size: int
) -> Iterator[tuple[Int[np.ndarray, "rows"], Bool[np.ndarray, "rows"]]]:
    """Indices of `count` rows, `batch_size` at a time; the first rows fill up the last batch.

    So every batch has one size, and one program is compiled for all. The second array is false
    where a row only fills up.
    """
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size)
        yield rows % count, rows < count


def collect(arrays: Any) -> Any:
    """A tree of arrays on the devices as whole arrays in the memory of every host.

    Undoes `Partitioner.distribute`; waits for the arrays. What is on the host already stays.
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, jax.device_get(arrays))
    return jax.tree.map(_whole, arrays)


def _whole(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and not x.is_fully_replicated and not x.is_fully_addressable:
        return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """A mesh, the rules by which arrays are laid out on it, and how long a batch's rows are."""

    mesh: Mesh
    rules: Rules
    lengths: Lengths = Lengths()

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """Rows over "data", and over the slices if there are several; everything else whole."""
        return NamedSharding(self.mesh, PartitionSpec(self._rows))

    @property
    def copies(self) -> int:
        """Of the model: parts that the rows of a batch are shared out to."""
        return _extent(self.mesh, self._rows)

    @property
    def _rows(self) -> str | tuple[str, ...]:
        return ("slice", "data") if "slice" in self.mesh.shape else "data"

    def sharding(self, shape: Sequence[int], names: Names) -> NamedSharding:
        """Sharding of an array by its axis names; an axis the mesh cannot divide stays whole."""
        spec = nn.logical_to_mesh_axes(names, self.rules)
        assert spec is not None  # as it would be without names
        divisible = (
            axis if axis is not None and size % _extent(self.mesh, axis) == 0 else None
            for size, axis in zip(shape, spec, strict=True)
        )
        return NamedSharding(self.mesh, PartitionSpec(*divisible))

    def shardings(self, arrays: Any, names: Any) -> Any:
        """`sharding` of a tree of arrays or shapes, and the matching tree of axis names."""
        return jax.tree.map(lambda x, axes: self.sharding(x.shape, axes), arrays, names)

    def check_batch(self, batch_size: int, micro_batches: int = 1) -> None:
        """Raises ValueError if the mesh cannot share out a batch of this many rows.

        `micro_batches` is the number of pieces a batch is processed in, one after the other.
        """
        if micro_batches < 1:
            raise ValueError(f"expected 1 micro-batch or more, got {micro_batches}")
        unit = self.copies * micro_batches
        if batch_size % unit:
            below = batch_size // unit * unit
            near = _listed(size for size in (below, below + unit) if size)
            raise ValueError(
                f"expected a batch size that is a multiple of {self.copies} (the mesh's data axis) "
                f"x {micro_batches} (micro-batches), got {batch_size}; {near} would do"
            )

    def distribute(self, batch: Any) -> Any:
        """A batch, a tree of host arrays that all processes have alike, over the devices.

        Padding that no row needs stays behind: see `Lengths.cut`. What is on the devices already
        stays as it is.

        Raises:
          ValueError: if the mesh cannot share out the rows.
        """
        processes.beat()

        def place(rows):
            if isinstance(rows, jax.Array):
                return rows
            self.check_batch(rows.shape[0])
            return jax.make_array_from_process_local_data(self.batch, rows, rows.shape)

        return jax.tree.map(place, self.lengths.cut(batch))

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """While a function is traced inside, its activations' axis names mean this mesh."""
        with (
            jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh),
            nn.logical_axis_rules(self.rules),
        ):
            yield


def make_partitioner(
    num_partitions: int = 1,
    activation_dims: int = 1,
    parameter_dims: int = 1,
    across_slices: bool = False,
    devices: Sequence[Any] | None = None,
    lengths: Sequence[float] = EIGHTHS,
) -> Partitioner:
    """The partitioner of `make_mesh`, `logical_axis_rules` and `Lengths`; raises as they do."""
    mesh = make_mesh(num_partitions, devices)
    slices = mesh.shape.get("slice", 1)
    rules = logical_axis_rules(activation_dims, parameter_dims, slices, across_slices)
    return Partitioner(mesh, rules, Lengths(lengths))
