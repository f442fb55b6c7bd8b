"""Writes an adapter in the format of PEFT, which puts it on a Hugging Face model."""

from collections.abc import Iterator
import dataclasses
import json
from typing import Any, ClassVar

from etils import epath
import numpy as np

from po_jax.checkpoints import leaves as lazy
from po_jax.checkpoints import peft_files, safetensors, trees
from po_jax.checkpoints.directories import new_directory
from po_jax.checkpoints.leaves import Leaves
from po_jax.checkpoints.load import Checkpoint
from po_jax.checkpoints.peft_files import CONFIG, WEIGHTS


@dataclasses.dataclass(frozen=True)
class Export:
    """What is written; `plan` makes it, `write` carries it out.

    Attributes:
      parameters: A and B, by PEFT's names.
      config: what adapter_config.json says.
      family: of the base, Hugging Face's model type.
    """

    parameters: Leaves
    config: dict[str, Any]
    family: str

    format: ClassVar[str] = "peft"
    vocabulary: ClassVar[None] = None

    def lines(self) -> Iterator[str]:
        """One line a parameter: its name in the target, shape, dtype, and where it comes from."""
        for name, leaf in self.parameters.items():
            yield f"{name} {leaf.shape} {leaf.dtype.name} <- {leaf.where}"

    def write(self, path: epath.PathLike) -> None:
        """Writes the target, reads it back, and gives it its name.

        Raises:
          FileExistsError: if `path` exists.
          ValueError: if what was read back differs.
        """
        with new_directory(path) as directory:
            (directory / CONFIG).write_text(json.dumps(self.config, indent=2) + "\n")
            safetensors.write_file(directory / WEIGHTS, self.parameters)
            written = safetensors.read_file(directory / WEIGHTS)
            for name, leaf in self.parameters.items():
                if not np.array_equal(written[name].value(), leaf.value()):
                    raise ValueError(
                        f"{directory / WEIGHTS}: expected the values of {leaf.where} for {name}, "
                        "got others"
                    )


def plan(checkpoint: Checkpoint) -> Export:
    """Decides what of an adapter goes where.

    Raises:
      ValueError: if the checkpoint is no adapter, or PEFT could not load its base.
    """
    adapter, base = checkpoint.adapter, checkpoint.base
    if adapter is None or base is None:
        raise ValueError(f"{checkpoint.path}: expected an adapter for PEFT, got a whole model")
    if base.config is None or base.family is None:
        raise ValueError(
            f"{checkpoint.path}: expected an adapter of a Hugging Face directory, as PEFT's are, "
            f"got one of {base.path} ({base.format}): write it merged, as hugging_face"
        )
    known = peft_files.modules(base.config)
    modules: set[str] = set()
    tensors: dict[str, lazy.Leaf] = {}
    for name, leaf in trees.named_layers(adapter.leaves).items():
        path, _, which = name.rpartition("/")
        modules.add(known[path])
        tensors[peft_files.name(known[path], which)] = lazy.transposed(leaf)
    rank = min(min(leaf.shape) for leaf in tensors.values())
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": str(base.path),
        "target_modules": sorted(modules),
        "r": rank,
        "lora_alpha": adapter.facts.scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    return Export(dict(sorted(tensors.items())), config, base.family)
