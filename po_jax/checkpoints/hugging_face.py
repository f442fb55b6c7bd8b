"""Hugging Face directories: the same T5 or T5Gemma under other names, kernels transposed.

A directory holds config.json, safetensors (one file or shards with an index), the generation
config and the tokenizer's files.
"""

from collections.abc import Mapping
import json
import types
from typing import Any

from etils import epath
import numpy as np

from po_jax.checkpoints import (
    about,
    hugging_face_config,
    hugging_face_t5gemma2,
    json_files,
    safetensors,
    tokenizer,
)
from po_jax.checkpoints import leaves as lazy
from po_jax.checkpoints.hugging_face_config import (
    CONFIG,
    GEMMAS,
    Config,
    special_ids_json,
    to_json,
)
from po_jax.checkpoints.leaves import Leaf, Leaves
from po_jax.t5.config import T5Config

EMBEDDING = "token_embedder/embedding"
GENERATION = "generation_config.json"
_WEIGHTS = (".safetensors", ".index.json", ".bin", ".h5", ".msgpack", ".pt", ".pth", ".onnx")
HEAD = "decoder/logits_dense/kernel"
ROWS = 4096  # Rows compared at a time where two matrices should be equal.

# The sublayers of a layer, in order: their name, T5X's name, and T5X's name of the norm before.
_SUBLAYERS = {
    "encoder": (
        ("SelfAttention", "attention", "pre_attention_layer_norm"),
        ("DenseReluDense", "mlp", "pre_mlp_layer_norm"),
    ),
    "decoder": (
        ("SelfAttention", "self_attention", "pre_self_attention_layer_norm"),
        ("EncDecAttention", "encoder_decoder_attention", "pre_cross_attention_layer_norm"),
        ("DenseReluDense", "mlp", "pre_mlp_layer_norm"),
    ),
}
SHARED_WEIGHT = "shared.weight"
HEAD_WEIGHT = "lm_head.weight"
_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}

# Copies of the embedding, and a table of T5 1.0 that its model never reads.
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)


def is_hugging_face(path: epath.Path) -> bool:
    """Whether `path` is a Hugging Face model directory."""
    return (path / CONFIG).exists()


def names(config: Config) -> dict[str, str]:
    """Hugging Face's name of every parameter of the network of named layers, by T5X's name."""
    gemma = GEMMAS.get(type(config))
    return _t5_names(config) if gemma is None else gemma.names(config)


def _t5_names(config: T5Config) -> dict[str, str]:
    result = {EMBEDDING: SHARED_WEIGHT}
    if not config.logits_via_embedding:
        result[HEAD] = HEAD_WEIGHT
    gated = len(config.mlp_activations) > 1
    branches = [f"wi_{i}" for i in range(len(config.mlp_activations))] if gated else ["wi"]
    feed_forward = {name: name for name in (*branches, "wo")}
    for stack, sublayers in _SUBLAYERS.items():
        result[f"{stack}/{stack}_norm/scale"] = f"{stack}.final_layer_norm.weight"
        for i in range(getattr(config, f"num_{stack}_layers")):
            for j, (theirs, ours, norm) in enumerate(sublayers):
                layer, block = f"{stack}/layers_{i}", f"{stack}.block.{i}.layer.{j}"
                result[f"{layer}/{norm}/scale"] = f"{block}.layer_norm.weight"
                for part, our_part in (feed_forward if ours == "mlp" else _ATTENTION).items():
                    result[f"{layer}/{ours}/{our_part}/kernel"] = f"{block}.{theirs}.{part}.weight"
            if i == 0 or not config.shared_relative_bias:
                owner = stack if config.shared_relative_bias else f"{stack}/layers_{i}"
                result[f"{owner}/relpos_bias/rel_embedding"] = (
                    f"{stack}.block.{i}.layer.0.SelfAttention.relative_attention_bias.weight"
                )
    return result


def read(directory: epath.Path) -> tuple[dict[str, Leaf], Config, str]:
    """The leaves of a directory by T5X's names, opened but not read; its network and family.

    Of a T5Gemma 2 those of the text part.

    Raises:
      ValueError: naming a file that is absent or truncated, an option of the config that is
        unknown, or a leaf that is absent, unknown, or differs from the one it should equal.
    """
    tensors = dict(safetensors.read(directory))
    config, family = hugging_face_config.read(directory, has_head=HEAD_WEIGHT in tensors)
    wanted = names(config)
    gemma = GEMMAS.get(type(config))
    copies = _t5_copies(tensors, config) if gemma is None else gemma.COPIES
    copies = {name: original for name, original in copies.items() if name in tensors}
    left = () if gemma is not hugging_face_t5gemma2 else hugging_face_t5gemma2.vision(tensors)
    _require(tensors, wanted, directory, known=(*copies, *_UNUSED, *left))
    for name, original in copies.items():
        _require_equal(tensors[name], tensors[original])
    leaves = {
        ours: tensors[theirs] if _same_layout(ours) else lazy.transposed(tensors[theirs])
        for ours, theirs in wanted.items()
    }
    return leaves, config, family


def _t5_copies(tensors: dict[str, Leaf], config: T5Config) -> dict[str, str]:
    """Names of tensors that must equal another; adds the embedding or head that is not said."""
    if SHARED_WEIGHT not in tensors:
        # Some writers keep the shared embedding only under the name of one of its users.
        present = [name for name in _COPIES if name in tensors]
        if present:
            tensors[SHARED_WEIGHT] = tensors.pop(present[0])
    tied = config.logits_via_embedding
    if not tied and SHARED_WEIGHT in tensors:
        # A head that does not scale but equals the embedding is stored once.
        tensors.setdefault(HEAD_WEIGHT, tensors[SHARED_WEIGHT])
    return dict.fromkeys((*_COPIES, HEAD_WEIGHT) if tied else _COPIES, SHARED_WEIGHT)


def _same_layout(name: str) -> bool:
    return name.endswith(("/embedding", "/image_end", "/scale"))


def _require(
    tensors: dict[str, Leaf], wanted: dict[str, str], directory: epath.Path, known: tuple[str, ...]
) -> None:
    missing = sorted(name for name in wanted.values() if name not in tensors)
    extra = sorted(set(tensors) - set(wanted.values()) - set(known))
    if missing or extra:
        raise ValueError(
            f"{directory}: expected the {len(wanted)} arrays that {CONFIG} describes, got "
            f"{len(missing)} missing {missing[:3]}, {len(extra)} unknown {extra[:3]}."
        )


def _require_equal(copy: Leaf, original: Leaf) -> None:
    if copy.shape == original.shape:
        rows = (slice(i, min(i + ROWS, copy.shape[0])) for i in range(0, copy.shape[0], ROWS))
        blocks = ((block, slice(0, copy.shape[1])) for block in rows)
        if all(np.array_equal(copy.read(block), original.read(block)) for block in blocks):
            return
    raise ValueError(
        f"{copy.where}: expected a copy of the shared embedding {original.where}, as {CONFIG} "
        "says, got other values."
    )


def write(
    directory: epath.Path,
    parameters: Leaves,
    config: Config,
    *,
    family: str,
    kept: Mapping[str, Any] | None = None,
    beside: Leaves = types.MappingProxyType({}),
) -> None:
    """Writes weights, config and generation config into an existing directory.

    Args:
      directory: that exists; `new_directory` makes an all-or-nothing one.
      parameters: those of the network of named layers.
      config: of that network.
      family: `model_type`: t5, mt5, umt5, t5gemma or t5gemma2.
      kept: another config.json, whose options stay where the network does not determine them.
      beside: tensors that are none of the network's, by Hugging Face's names; see `vision`.

    Raises:
      ValueError: if the family cannot hold the network.
    """
    dtype = next(iter(parameters.values())).dtype.name
    description = to_json(config, family=family, dtype=dtype, kept=kept or {})
    tensors = {
        theirs: parameters[ours] if _same_layout(ours) else lazy.transposed(parameters[ours])
        for ours, theirs in names(config).items()
    }
    safetensors.write(directory, {**tensors, **beside})
    _write_json(directory / CONFIG, description)
    ids = hugging_face_config.special_ids(directory)
    _write_json(directory / GENERATION, special_ids_json(ids))


def _write_json(file: epath.Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def vision(directory: epath.Path) -> Leaves:
    """The tensors of a T5Gemma 2's vision tower, as they are; none of any other directory."""
    if json_files.read_object(directory / CONFIG)["model_type"] != hugging_face_t5gemma2.FAMILY:
        return {}
    return hugging_face_t5gemma2.vision(safetensors.read(directory))


def copy_rest(source: epath.Path, target: epath.Path) -> None:
    """Copies what a directory has beside weights, config and tokenizer: it describes no network."""
    for file in source.iterdir():
        name = file.name
        known = name in (CONFIG, about.FILE) or name in tokenizer.FILES or name.startswith(".")
        if not (known or file.is_dir() or name.endswith(_WEIGHTS)):
            file.copy(target / name, overwrite=True)
