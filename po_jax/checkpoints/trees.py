"""The parameter trees of a T5, and how one becomes another.

T5X's `examples/t5` names every layer and shares one relative bias by a stack; `scalable_t5` stacks
the layers on axis 1, keeps heads apart from their width, and has one bias a layer, as umT5 has
without stacking. The tree of named layers is the hub: every conversion goes through it.
"""

from collections.abc import Iterable, Mapping
import re

import numpy as np

from po_jax.checkpoints import leaves as lazy
from po_jax.checkpoints.leaves import LastRead, Leaf, Leaves

BIAS = "relpos_bias/rel_embedding"
STACKS = ("encoder", "decoder")
LAYER_AXIS = 1

Shapes = Mapping[str, tuple[int, ...]]


def fit(leaves: Leaves, shapes: Shapes, where: str) -> Leaves:
    """The leaves as a network with these parameters wants them: layers stacked or not.

    Args:
      leaves: by their path in either tree.
      shapes: of the network's parameters, by path.
      where: the checkpoint, for messages.

    Raises:
      ValueError: naming a leaf that is absent, left over or of another shape, or a bias that
        differs between layers where the network shares it (then when read).
    """
    if set(leaves) != set(shapes):
        leaves = named_layers(leaves)
        per_layer = any(re.search(rf"layers_\d+/{BIAS}", name) for name in shapes)
        leaves = _per_layer_bias(leaves) if per_layer or scanned(shapes) else _shared_bias(leaves)
        if scanned(shapes):
            leaves = _stacked_layers(leaves, shapes)
    _require_shapes(leaves, shapes, where)
    return leaves


def _require_shapes(leaves: Leaves, shapes: Shapes, where: str) -> None:
    """Checks that these leaves, no more and no fewer, have these shapes; see `fit`."""
    missing, extra = sorted(set(shapes) - set(leaves)), sorted(set(leaves) - set(shapes))
    if missing or extra:
        raise ValueError(
            f"{where}: expected the {len(shapes)} arrays of the network, got {len(leaves)}: "
            f"{len(missing)} missing {missing[:3]}, {len(extra)} unknown {extra[:3]}."
        )
    for name, shape in shapes.items():
        if leaves[name].shape != tuple(shape):
            raise ValueError(
                f"{leaves[name].where}: expected shape {tuple(shape)} for {name}, got "
                f"{leaves[name].shape}."
            )


def scanned(names: Iterable[str]) -> bool:
    """Whether these are the parameters of stacked layers."""
    return any(name.startswith(f"{stack}/{stack}/") for name in names for stack in STACKS)


def depth(names: Iterable[str], stack: str) -> int:
    """Number of named layers of a stack."""
    return 1 + max(
        (int(m[1]) for m in (re.match(rf"{stack}/layers_(\d+)/", name) for name in names) if m),
        default=-1,
    )


def named_layers(leaves: Leaves) -> dict[str, Leaf]:
    """Stacked layers made named ones; other leaves as they are."""
    result, cache = {}, LastRead()
    for name, leaf in leaves.items():
        stack, *rest = name.split("/")
        if stack not in STACKS or rest[0] != stack:
            result[name] = leaf
            continue
        parameter = "/".join(rest[1:])
        for i, layer in enumerate(lazy.unstacked(leaf, LAYER_AXIS, cache)):
            if len(layer.shape) == 3:  # A kernel of heads: [E, H, D], or [H, D, E] out of them.
                layer = lazy.joined(layer, 0 if parameter.endswith("out/kernel") else 1)
            result[f"{stack}/layers_{i}/{parameter}"] = layer
    return result


def _stacked_layers(leaves: Leaves, shapes: Shapes) -> dict[str, Leaf]:
    """Named layers made stacked ones, of the rank that `shapes` asks for."""
    result, stacks = {}, {}
    for name, leaf in leaves.items():
        if match := re.fullmatch(r"(\w+)/layers_(\d+)/(.+)", name):
            stack, i, parameter = match.groups()
            stacks.setdefault(f"{stack}/{stack}/{parameter}", {})[int(i)] = leaf
        else:
            result[name] = leaf
    for name, layers in stacks.items():
        ordered = [layers[i] for i in sorted(layers)]
        shape = shapes.get(name, ())
        if len(shape) == 4:
            out = name.endswith("out/kernel")
            width = shape[2] if out else shape[3]
            ordered = [lazy.split(layer, 0 if out else 1, width) for layer in ordered]
        result[name] = lazy.stacked(ordered, LAYER_AXIS)
    return result


def _per_layer_bias(leaves: Leaves) -> dict[str, Leaf]:
    """A shared relative bias given to every layer."""
    result = dict(leaves)
    for stack in STACKS:
        shared = result.pop(f"{stack}/{BIAS}", None)
        if shared is not None:
            for i in range(depth(leaves, stack)):
                result[f"{stack}/layers_{i}/{BIAS}"] = shared
    return result


def _shared_bias(leaves: Leaves) -> dict[str, Leaf]:
    """The relative bias of the first layer for all, which must be equal."""
    result = dict(leaves)
    for stack in STACKS:
        biases = [
            result.pop(f"{stack}/layers_{i}/{BIAS}")
            for i in range(depth(leaves, stack))
            if f"{stack}/layers_{i}/{BIAS}" in leaves
        ]
        if biases:
            result[f"{stack}/{BIAS}"] = _equal(biases, stack)
    return result


def _equal(biases: list[Leaf], stack: str) -> Leaf:
    first = biases[0]

    def read(block: lazy.Block) -> np.ndarray:
        values = [bias.read(block) for bias in biases]
        for i, value in enumerate(values):
            if not np.array_equal(value, values[0]):
                distance = np.abs(value.astype(np.float32) - values[0].astype(np.float32)).max()
                raise ValueError(
                    f"{first.where}: expected one relative bias shared by the layers of the "
                    f"{stack}, got layer {i} different from layer 0 by {distance:.3g}; a network "
                    "with shared_relative_bias=False (family umt5) can hold it."
                )
        return values[0]

    return Leaf(first.shape, first.dtype, first.where, read)
