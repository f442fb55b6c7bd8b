"""The two files of an adapter in PEFT's format, and the names in them.

`adapter_config.json` says what is adapted, `adapter_model.safetensors` holds A and B, each named
after its module there and transposed, as torch's linear layers have their weights.
"""

from collections.abc import Mapping
import math
from typing import Any

from etils import epath

from po_jax.checkpoints import hugging_face, json_files, safetensors
from po_jax.checkpoints import leaves as lazy
from po_jax.checkpoints.hugging_face_config import Config
from po_jax.checkpoints.leaves import Leaf
from po_jax.t5gemma.config import T5Gemma2Config

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# What is read; a config that says nothing of it means these. Anything that is false will do too.
_FIXED = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "lora_bias": False,
    "use_dora": False,
    "modules_to_save": None,
    "rank_pattern": None,
    "alpha_pattern": None,
    "layer_replication": None,
    "target_parameters": None,
    "trainable_token_indices": None,
}
# Other starts than these take from the base's kernels what they give to the adapter.
_STARTS = (True, False, "gaussian", "eva", "orthogonal")


def is_peft(path: epath.Path) -> bool:
    """Whether `path` is a directory of an adapter in PEFT's format."""
    return (path / CONFIG).exists()


def name(module: str, which: str) -> str:
    """PEFT's name of A or B of a module."""
    return f"{_PREFIX}{module}.lora_{which.upper()}.weight"


def modules(config: Config) -> dict[str, str]:
    """The module of every kernel of a network of named layers in `transformers`, by our path."""
    result = {
        ours: theirs.removesuffix(".weight")
        for ours, theirs in hugging_face.names(config).items()
        if ours.endswith("/kernel")
    }
    if isinstance(
        config, T5Gemma2Config
    ):  # Its encoder's modules are not called what its files are.
        result = {
            ours: module.replace("model.encoder.", "model.encoder.text_model.")
            for ours, module in result.items()
        }
    return result


def read_config(directory: epath.Path) -> Mapping[str, Any]:
    """What adapter_config.json says, if it is of an adapter that can be read.

    Raises:
      ValueError: naming the option that is absent or not supported.
    """
    file = directory / CONFIG
    content = json_files.read_object(file)
    for key, expected in _FIXED.items():
        found = content.get(key, expected)
        if found != expected and (found or expected):
            raise ValueError(f"{file}: expected {key} to be {expected!r}, got {found!r}")
    if content.get("init_lora_weights", True) not in _STARTS:
        raise ValueError(
            f"{file}: expected init_lora_weights in {list(_STARTS)}, which leave the base as it "
            f"is, got {content['init_lora_weights']!r}"
        )
    for key, kinds in (
        ("base_model_name_or_path", (str,)),
        ("r", (int,)),
        ("lora_alpha", (int, float)),
    ):
        if type(content.get(key)) not in kinds or not content[key]:
            raise ValueError(f"{file}: expected {key}, got {content.get(key)!r}")
    if not epath.Path(content["base_model_name_or_path"]).exists():
        raise ValueError(
            f"{file}: expected base_model_name_or_path to be a folder that is here, got "
            f"{content['base_model_name_or_path']!r}"
        )
    return content


def scale(content: Mapping[str, Any]) -> float:
    """By which the product of A and B counts."""
    rank = content["r"]
    return content["lora_alpha"] / (math.sqrt(rank) if content.get("use_rslora") else rank)


def read_weights(directory: epath.Path, config: Config) -> dict[str, Leaf]:
    """A and B by "<path of the kernel>/a" and "/b", opened but not read.

    Args:
      directory: of the adapter.
      config: the network of its base.

    Raises:
      ValueError: if there is a tensor of something else, or an A without its B.
    """
    file = directory / WEIGHTS
    tensors = safetensors.read_file(file)
    known = {
        name(module, which): f"{path}/{which}"
        for path, module in modules(config).items()
        for which in "ab"
    }
    unknown = sorted(set(tensors) - set(known))
    if unknown or not tensors:
        raise ValueError(
            f"{file}: expected A and B of linear maps of the base, got {len(tensors)} tensors, "
            f"{len(unknown)} of them others {unknown[:3]}"
        )
    found = {known[theirs]: lazy.transposed(leaf) for theirs, leaf in tensors.items()}
    alone = sorted(path for path in found if f"{path[:-1]}{'ab'[path[-1] == 'a']}" not in found)
    if alone:
        raise ValueError(f"{file}: expected A and B of each kernel, got one alone of {alone[:3]}")
    return found
