"""Commands of T5X and of ours, as a user gives them, on a few lines of JSON."""

from collections.abc import Iterable, Mapping
import dataclasses
import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np

from po_jax.checkpoints.load import open_checkpoint
from po_jax.t5.language_model import T5LM
from tests.t5x import harness

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the cat dog sat on mat big red house ran to park with ball".split()
LENGTHS = {"inputs": 16, "targets": 8}
VOCABULARY_SIZE = 8192  # of the docstrings' vocabulary
NETWORK = {
    "config.T5Config.dtype": '"float32"',
    "config.T5Config.vocab_size": str(VOCABULARY_SIZE),
}


def write_data(folder: Path) -> None:
    """Three files of comparisons, the task of `tasks.jsonl`."""
    folder.mkdir()
    for split, rows in (("train", 24), ("validation", 8), ("test", 5)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for row in range(rows):
                said = [
                    " ".join(WORDS[(row * 5 + i * i) % len(WORDS)] for i in range(n))
                    for n in (7, 3, 4)
                ]
                texts = dict(zip(("prompt", "chosen", "rejected"), said, strict=True))
                file.write(json.dumps(texts) + "\n")


def write_policy(folder: Path, seed: int = 3, scale: float = 1.0) -> str:
    """A checkpoint of the network that `command` names."""
    config = dataclasses.replace(
        harness.CONFIG, vocab_size=VOCABULARY_SIZE, emb_dim=8, head_dim=3, mlp_dim=16
    )
    return harness.write_start(folder, T5LM(config), seed, scale)


def leaves(checkpoint: str | Path) -> dict[str, np.ndarray]:
    """The parameters of a checkpoint."""
    return {name: leaf.value() for name, leaf in open_checkpoint(checkpoint).parameters.items()}


def command(module: str, files: Iterable[str], **bindings: str) -> list[str]:
    """`python -m MODULE` with gin files and bindings, dots of whose names are written __."""
    given = {
        **NETWORK,
        "MIXTURE_OR_TASK_MODULE": '"tasks.jsonl"',
        "TASK_FEATURE_LENGTHS": str(LENGTHS),
        **{name.replace("__", "."): value for name, value in bindings.items()},
    }
    files = ["gin/models/t5_1_1/tiny.gin", *files]
    return [
        *(sys.executable, "-m", module, f"--gin_search_paths={ROOT}"),
        *(f"--gin_file={file}" for file in files),
        *(f"--gin.{name}={value}" for name, value in given.items()),
    ]


def environment(data: Path) -> Mapping[str, str]:
    """Of such a command."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "PO_JAX_JSONL_DIR": str(data),
        "PO_JAX_VOCABULARY": "docstrings",
    }


def run(words: list[str], data: Path) -> subprocess.CompletedProcess:
    """Runs it to its end, in the data's folder's parent."""
    return subprocess.run(
        words, cwd=data.parent, env=environment(data), capture_output=True, text=True
    )
