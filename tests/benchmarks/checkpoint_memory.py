"""Peak host memory of converting and loading a T5 1.1 Base checkpoint, 990 MB of random weights.

    python -m tests.benchmarks.checkpoint_memory [--bound 1.3]

Every step is a process of its own, and its peak resident memory is the kernel's figure: Python and
the libraries (about 190 MB) are in it. Exits with 1 if a conversion exceeds the bound, in multiples
of the checkpoint's size. Loading ends with the model in memory: on a CPU, in the host's.
"""

import argparse
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time

from etils import epath
import jax
import numpy as np

from po_jax.checkpoints import describe, hugging_face
from po_jax.checkpoints.leaves import Block, Leaf
from po_jax.checkpoints.load import load, open_checkpoint
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM

BASE = T5Config(
    vocab_size=32128,
    emb_dim=768,
    num_heads=12,
    head_dim=64,
    mlp_dim=2048,
    num_encoder_layers=12,
    num_decoder_layers=12,
    mlp_activations=("gelu", "linear"),
)
STEPS = {  # name: (source, target, options of launch.convert)
    "Hugging Face -> T5X": ("hf", "t5x", ("--format=t5x",)),
    "T5X -> Hugging Face": ("t5x", "back", ("--format=hugging_face",)),
    "Hugging Face -> T5X, stacked": ("hf", "stacked", ("--format=t5x", "--scanned")),
    "stacked -> Hugging Face, bfloat16": (
        "stacked",
        "half",
        ("--format=hugging_face", "--dtype=bfloat16"),
    ),
}


def random_leaf(seed: int, name: str, shape: tuple[int, ...]) -> Leaf:
    def read(block: Block) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal(shape, np.float32)[block]

    return Leaf(shape, np.dtype(np.float32), name, read)


def write_model(directory: Path) -> None:
    directory.mkdir()
    shapes = describe.parameter_shapes(BASE)
    leaves = {name: random_leaf(i, name, shapes[name]) for i, name in enumerate(shapes)}
    hugging_face.write(epath.Path(directory), leaves, BASE, family="t5")


def peak(*arguments: str) -> tuple[float, float]:
    """Peak resident memory of a process, MB, and its seconds."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments} failed")
    return usage.ru_maxrss * 1024 / 1e6, time.monotonic() - start


def load_only(path: str) -> None:
    params = load(path, jax.eval_shape(T5LM(BASE).init, jax.random.key(0)))
    jax.block_until_ready(params)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bound", type=float, default=1.3)
    parser.add_argument("--load", help="only loads this checkpoint")
    arguments = parser.parse_args()
    if arguments.load:
        load_only(arguments.load)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_model(folder / "hf")
        leaves = open_checkpoint(folder / "hf").parameters.values()
        size = sum(leaf.nbytes for leaf in leaves) / 1e6

        def measure(name: str, *command: str) -> float:
            megabytes, seconds = peak(*command)
            ratio = megabytes / size
            print(f"{name:36} {megabytes:5.0f} MB = {ratio:.2f} x {size:.0f} MB, {seconds:.0f} s")
            return ratio

        conversions = [
            measure(
                name,
                "launch.convert",
                f"--from={folder / source}",
                f"--to={folder / target}",
                *options,
            )
            for name, (source, target, options) in STEPS.items()
        ]
        for source in ("hf", "t5x", "stacked"):
            measure(f"load {source}", __spec__.name, f"--load={folder / source}")
    return int(max(conversions) > arguments.bound)


if __name__ == "__main__":
    sys.exit(main())
