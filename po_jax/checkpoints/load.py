"""Any checkpoint, opened by what it is and loaded into the shards that ask for it."""

from collections.abc import Collection, Mapping
import dataclasses
import re
from typing import Any

from etils import epath
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray
import numpy as np

from po_jax import files
from po_jax.checkpoints import (
    hugging_face,
    hugging_face_config,
    orbax,
    peft_files,
    t5x_legacy,
    trees,
)
from po_jax.checkpoints import leaves as lazy
from po_jax.checkpoints.about import About, AdapterFacts
from po_jax.checkpoints.adapters import Adapter
from po_jax.checkpoints.leaves import Leaf, Leaves
from po_jax.language_model import LanguageModel, frozen_part, joined, trained_part
from po_jax.lora import ADAPTER, BASE, LoRA
from po_jax.partitioning import Partitioner, laid_out, shardings_of
from po_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; nothing of its arrays is read yet.

    Attributes:
      path: of the checkpoint itself, where a directory of several was given.
      format: `hugging_face`, `peft`, `t5x` (legacy) or `orbax` (T5X's newer one and po_jax's own).
      parameters: by T5X's names, of named or stacked layers.
      slots: of Adafactor, "<path of the parameter>/v_row" and so on; empty where it has none.
      average: moving average of the parameters; empty where it has none.
      step: of training; 0 where the checkpoint does not say.
      config: the network, where the checkpoint describes it.
      family: Hugging Face's model type, where the checkpoint names it.
      about: what it says of itself beside that.
      adapter: where it holds an adapter alone; its parameters are then the base's, changed by it.
      base: the checkpoint of that base.
    """

    path: epath.Path
    format: str
    parameters: Leaves
    slots: Leaves
    average: Leaves = dataclasses.field(default_factory=dict)
    step: int = 0
    config: hugging_face_config.Config | None = None
    family: str | None = None
    about: About = About()
    adapter: Adapter | None = None
    base: "Checkpoint | None" = None


def open_checkpoint(path: epath.PathLike) -> Checkpoint:
    """Opens a Hugging Face, PEFT, T5X or po_jax checkpoint, or the latest of a directory of them.

    Raises:
      ValueError: if the path is none of these, out of reach, or damaged.
    """
    path = files.absolute(path)
    with files.reaching(path):
        return _open(_latest(path))


def _open(path: epath.Path) -> Checkpoint:
    if hugging_face.is_hugging_face(path):
        parameters, config, family = hugging_face.read(path)
        ids = hugging_face_config.special_ids(path)
        about = dataclasses.replace(About.read(path), special_ids=ids)
        about = about.with_network(config.beyond_shapes)
        return Checkpoint(
            path, "hugging_face", parameters, {}, config=config, family=family, about=about
        )
    if peft_files.is_peft(path):
        return _open_peft(path)
    if t5x_legacy.is_legacy(path):
        state = _training_state(path, "t5x", t5x_legacy.read(path))
        return dataclasses.replace(state, about=About.read(path))
    if tree := orbax.find(path):
        state = _training_state(path, "orbax", orbax.read(tree))
        state = dataclasses.replace(state, about=orbax.about(tree))
        facts = state.about.adapter
        return state if facts is None else _with_base(state, facts, _base(path, facts.base))
    raise ValueError(
        f"{path}: expected a Hugging Face directory ({hugging_face.CONFIG}), a T5X or po_jax "
        f"checkpoint ({t5x_legacy.INDEX} or {orbax.METADATA}) or a directory of those, got "
        f"{_listing(path)}."
    )


def _open_peft(path: epath.Path) -> Checkpoint:
    """An adapter in PEFT's format, on the Hugging Face directory that it names."""
    said = peft_files.read_config(path)
    base = _base(path, said["base_model_name_or_path"])
    if base.config is None:
        raise ValueError(
            f"{path}: expected the adapter of a Hugging Face directory, got one of {base.path} "
            f"({base.format})"
        )
    dtype = next(iter(base.parameters.values())).dtype.name
    facts = AdapterFacts(str(base.path), None, peft_files.scale(said), dtype)
    leaves = peft_files.read_weights(path, base.config)
    about = dataclasses.replace(
        About.read(path), special_ids=base.about.special_ids, network=base.about.network
    )
    state = {f"{ADAPTER}/{name}": leaf for name, leaf in leaves.items()}
    return _with_base(Checkpoint(path, "peft", state, {}, about=about), facts, base)


def _base(path: epath.Path, base: str) -> Checkpoint:
    try:
        return open_checkpoint(base)
    except ValueError as error:
        raise ValueError(f"{path} is an adapter; its base: {error}") from error


def _with_base(state: Checkpoint, facts: AdapterFacts, base: Checkpoint) -> Checkpoint:
    """The model that an adapter and its base make."""
    leaves = {name.removeprefix(f"{ADAPTER}/"): leaf for name, leaf in state.parameters.items()}
    adapter = Adapter(str(state.path), leaves, base.parameters, facts)
    return dataclasses.replace(
        state,
        about=dataclasses.replace(state.about, adapter=None),
        parameters=adapter.merged(),
        slots={},
        average={},
        config=base.config,
        family=base.family,
        adapter=adapter,
        base=base,
    )


def _latest(path: epath.Path) -> epath.Path:
    """The checkpoint of the highest step, where `path` is a model directory."""
    if not path.is_dir() or hugging_face.is_hugging_face(path):
        return path
    steps: dict[int, epath.Path] = {}
    for child in path.iterdir():
        if match := re.fullmatch(r"(?:checkpoint_)?([0-9]+)", child.name):
            other = steps.setdefault(int(match[1]), child)
            if other != child:
                raise ValueError(
                    f"{path}: expected one checkpoint of each step, got {other.name} and "
                    f"{child.name}"
                )
    return steps[max(steps)] if steps else path


def _listing(path: epath.Path) -> str:
    if not path.exists():
        return "no such path"
    if path.is_file():
        return "a file of another kind"
    return f"a directory of {sorted(child.name for child in path.iterdir())[:5]}"


def _training_state(path: epath.Path, format: str, leaves: Leaves) -> Checkpoint:
    def under(*prefixes: str) -> dict[str, Leaf]:
        return {
            name.removeprefix(prefix): leaf
            for prefix in prefixes
            for name, leaf in leaves.items()
            if name.startswith(prefix)
        }

    parameters = under("target/", "params/")
    if not parameters:
        raise ValueError(
            f"{path}: expected parameters under target/ or params/, got {sorted(leaves)[:3]}."
        )
    step = under("state/step", "step").get("")
    return Checkpoint(
        path,
        format,
        parameters,
        under("state/param_states/", "optimizer_state/param_states/"),
        under("average/", "flax_mutables/average/"),
        step=0 if step is None else _whole_number(step),
    )


def _whole_number(leaf: Leaf) -> int:
    """A step; T5X's is of float32 in what a run saves that was resumed."""
    value = leaf.value()
    number = np.issubdtype(value.dtype, np.integer) or np.issubdtype(value.dtype, np.floating)
    if value.size != 1 or not number or value.item() < 0 or value.item() % 1:
        raise ValueError(f"{leaf.where}: expected a step, a whole number, got {value!r:.60}")
    return int(value.item())


def load(path: epath.PathLike | Checkpoint, like: Params) -> Params:
    """The parameters of a checkpoint, in the tree, dtypes and shardings that are asked for.

    Leaf after leaf goes straight to its devices: beyond what ends there, the host holds one leaf
    (one shard of a leaf, where the format permits). Optimiser slots are left alone.

    Args:
      path: see `open_checkpoint`; or what it opened.
      like: the network's parameters as arrays or `jax.ShapeDtypeStruct`s; a leaf without
        a sharding goes to the default device.

    Raises:
      ValueError: naming file and leaf, where the checkpoint is damaged, of another network, or
        holds what is no finite number.
    """
    checkpoint = path if isinstance(path, Checkpoint) else open_checkpoint(path)
    wanted, structure = _by_path(like)
    shapes = {name: leaf.shape for name, leaf in wanted.items()}
    fitting = trees.fit(checkpoint.parameters, shapes, str(checkpoint.path))
    placed = place({name: lazy.finite(leaf) for name, leaf in fitting.items()}, wanted)
    return structure.unflatten(placed[name] for name in wanted)


def load_parameters(
    model: LanguageModel,
    path: epath.PathLike | Checkpoint,
    partitioner: Partitioner,
    dtype: str = "float32",
    kinds: Collection[str] = (),
) -> Params:
    """A language model's parameters from any known checkpoint, sharded as the mesh's rules say.

    Args:
      model: that reads them.
      path: see `open_checkpoint`; or what it opened.
      partitioner: the mesh and its rules.
      dtype: to keep them in.
      kinds: of models that will do, such as `about.POLICIES`; empty for any.

    Raises:
      ValueError: if the checkpoint is damaged, or of another model or kind of it.
    """
    checkpoint = path if isinstance(path, Checkpoint) else open_checkpoint(path)
    checkpoint.about.require(f"{checkpoint.path}", kinds, About.of(model))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    like = laid_out(shapes, partitioner.shardings(shapes, model.parameter_axes()))
    if isinstance(model, LoRA):
        frozen = load_frozen(checkpoint, frozen_part(model, like))
        trained = load_trained(checkpoint, model, trained_part(model, like), jax.random.key(0))
        return joined(trained, frozen)
    return load(checkpoint, jax.tree.map(lambda leaf: leaf.update(dtype=jnp.dtype(dtype)), like))


def load_frozen(checkpoint: Checkpoint, like: Params) -> Params:
    """What is not trained where a run with adapters starts from a checkpoint: its base.

    Args:
      checkpoint: of a whole model, which becomes the base, or of an adapter.
      like: see `load`.

    Raises:
      ValueError: what `load` raises, and if the base of an adapter has changed.
    """
    if checkpoint.adapter is not None:
        checkpoint.adapter.check_base()
    return {BASE: load(checkpoint.base or checkpoint, like[BASE])}


def load_trained(checkpoint: Checkpoint, model: LoRA, like: Params, key: PRNGKeyArray) -> Params:
    """What is trained where a run with adapters starts from a checkpoint.

    Args:
      checkpoint: of an adapter, which goes on; or of a whole model, which is given a fresh one.
      model: the language model.
      like: see `load`.
      key: of a fresh adapter.

    Raises:
      ValueError: what `load` raises, and if the adapter is of another kind.
    """
    if checkpoint.adapter is None:
        fresh = jax.jit(
            lambda key: trained_part(model, model.init(key)), out_shardings=shardings_of(like)
        )
        return fresh(key)
    checkpoint.adapter.check_fit(model.scale, model.base_dtype)
    leaves = dataclasses.replace(checkpoint, parameters=checkpoint.adapter.leaves)
    return {ADAPTER: load(leaves, like[ADAPTER])}


def _by_path(tree: Any) -> tuple[dict[str, Any], Any]:
    keyed, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [jax.tree_util.keystr(key, simple=True, separator="/") for key, _ in keyed]
    return dict(zip(paths, (leaf for _, leaf in keyed), strict=True)), structure


def place(leaves: Leaves, like: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Reads leaves onto devices, with the dtypes and shardings of `like`."""
    result = {}
    for name in lazy.in_reading_order(leaves):
        leaf = lazy.cast(leaves[name], like[name].dtype)
        sharding = getattr(like[name], "sharding", None)
        if sharding is None:
            result[name] = jnp.asarray(leaf.value())
        else:
            result[name] = jax.make_array_from_callback(leaf.shape, sharding, _reader(leaf))
        # Otherwise transfers would queue up, and with them the host's copies.
        result[name].block_until_ready()
    return result


def _reader(leaf: Leaf):
    """Reads a block once for all devices that hold it."""
    last: list[Any] = [None, None]

    def read(index: tuple[slice, ...]) -> np.ndarray:
        block = tuple(slice(*s.indices(n)[:2]) for s, n in zip(index, leaf.shape, strict=True))
        if last[0] != block:
            last[:] = [None, None]
            last[:] = [block, leaf.read(block)]
        return last[1]

    return read
