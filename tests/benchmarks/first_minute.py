"""From a command to its first step: T5-small and -large, scanned or not, caches cold or warm.

    python -m tests.benchmarks.first_minute small large

Each run is `launch.train` as a user starts it: online IPO-MD from random parameters, with a T5
preference model of the policy's size for a judge, on the embedded docstrings, in float32. It ends
as soon as the first step is recorded. The seconds are those of the whole command until then; of
tracing, lowering and compiling by JAX's log, for the start, the sampler, the judge and the step;
and of what is left: imports, data, loading, and the first step's own work. A run with a warm cache
is the same command once more. `--former` takes another checkout's turn as well: 5ac7f34, which kept
no cache by itself and is always cold, or a later one. The machine must be otherwise idle.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
import math
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import tempfile
import time

from etils import epath
import numpy as np

from po_jax.checkpoints import describe, hugging_face, leaves
from po_jax.t5.config import T5Config
from tests.benchmarks.real_lengths import cpu

HERE = Path(__file__).resolve().parents[2]
SIZES = {
    "tiny": dict(emb_dim=64, num_heads=4, head_dim=16, mlp_dim=128, layers=2),
    "small": dict(emb_dim=512, num_heads=6, head_dim=64, mlp_dim=1024, layers=8),
    "large": dict(emb_dim=1024, num_heads=16, head_dim=64, mlp_dim=2816, layers=24),
}
PROMPT, COMPLETION, BATCH = 512, 64, 8
LONGEST = 3600  # seconds that a run may take
# What JAX calls the programs that a run compiles, by the part that they play in it.
PARTS = {
    "start": "compute|create|init",
    "sampler": "sample",
    "judge": "prefer|judge_pairs",
    "step": "train_step|make_batch|score",
}
_FINISHED = re.compile(
    r"Finished (tracing|jaxpr to MLIR module conversion|XLA compilation)(?: of)? "
    r"(\S+)(?: for jit)? in ([\d.e-]+) sec"
)


def config(layers: int, **sizes: int) -> T5Config:
    """T5 1.1's network, of named layers."""
    return T5Config(
        vocab_size=32128,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        mlp_activations=("gelu", "linear"),
        dtype="float32",
        **sizes,
    )


def judge(size: str, folder: Path) -> None:
    """A checkpoint of cheap parameters, as Hugging Face writes them."""
    folder.mkdir()
    network = config(**SIZES[size])
    shapes = describe.parameter_shapes(network)
    value = np.float32(0.01)
    found = {
        name: leaves.from_array(np.broadcast_to(value, shape), name)
        for name, shape in shapes.items()
    }
    hugging_face.write(epath.Path(folder), found, network, family="t5")


def command(size: str, scanned: bool, checkpoint: Path, run: Path, *, early: bool) -> list[str]:
    """What a user would type; `early` is for a checkout as it was at 5ac7f34."""
    layers = SIZES[size]["layers"]
    sizes = {name: value for name, value in SIZES[size].items() if name != "layers"}
    sizes |= dict(num_encoder_layers=layers, num_decoder_layers=layers)
    bindings = {f"config.T5Config.{name}": value for name, value in sizes.items()} | {
        "config.T5Config.dtype": "float32",
        "config.T5Config.scan_layers": scanned,
        "MIXTURE_OR_TASK_MODULE": "tasks.docstrings",
        "MIXTURE_OR_TASK_NAME": "docstrings_prompts",
        "TASK_FEATURE_LENGTHS": {"inputs": PROMPT, "targets": COMPLETION},
        "BATCH_SIZE": BATCH,
        "TRAIN_STEPS": 2,
        "TAU": 0.1,
        "LOG_PERIOD": 1,
        "DROPOUT_RATE": 0.0,
        "INITIAL_CHECKPOINT_PATH": None,
        "MODEL_DIR": str(run),
    }
    if early:
        bindings |= {
            "config.T5Config.relative_bias": "per_layer" if scanned else "shared",
            "EVAL_PERIOD": 1000,
            "ANNOTATOR_CHECKPOINT_PATH": str(checkpoint),
        }
    else:
        bindings |= {
            "config.T5Config.shared_relative_bias": not scanned,
            "loop.Trainer.evaluations": None,
            "JUDGE_CHECKPOINT_PATH": str(checkpoint),
        }
    files = ("models/t5_1_1/small", "runs/online", "algorithms/ipo_md")
    return [sys.executable, "-m", "launch.train"] + [
        *(f"--gin_file=gin/{name}.gin" for name in files),
        *(f"--gin.{name}={value!r}" for name, value in bindings.items()),
    ]


def first_step(given: list[str], checkout: Path, cache: Path, run: Path) -> tuple[float, str]:
    """Seconds until a run has recorded its first step, and what it logged until then.

    No number if it came to none, for want of memory perhaps.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_LOG_COMPILES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "PYTHONPATH": str(checkout),
    }
    log = run.with_suffix(".log")
    metrics = run / "metrics.jsonl"
    with log.open("w") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            given, cwd=checkout, env=environment, stdout=output, stderr=output
        )
        while time.monotonic() - began < LONGEST and process.poll() is None:
            if metrics.exists() and '"train"' in metrics.read_text():
                took = time.monotonic() - began
                process.send_signal(signal.SIGKILL)
                process.wait()
                return took, log.read_text()
            time.sleep(0.05)
    process.kill()
    print(f"no first step came: exit status {process.wait()}; the end of its log:")
    print(log.read_text()[-500:])
    return math.nan, log.read_text()


def by_part(log: str) -> dict[str, float]:
    """Seconds of tracing, lowering and compiling, of each part of a run and of all else."""
    seconds: dict[str, float] = defaultdict(float)
    for _, name, found in _FINISHED.findall(log):
        parts = (part for part, words in PARTS.items() if re.search(words, name))
        seconds[next(parts, "else")] += float(found)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sizes", nargs="+", choices=SIZES)
    parser.add_argument("--former", type=Path, help="another checkout of po_jax")
    parser.add_argument(
        "--layers", nargs="+", choices=["scanned", "named"], default=["scanned", "named"]
    )
    parser.add_argument("--names", action="store_true", help="print every program's seconds")
    args = parser.parse_args()
    checkouts = {"po_jax": HERE} | ({"former": args.former.resolve()} if args.former else {})
    print(
        f"{cpu()}, {len(os.sched_getaffinity(0))} cores; batch {BATCH}, {PROMPT} and {COMPLETION}"
    )
    print("| size, layers, cache | whole | " + " | ".join([*PARTS, "else"]) + " | not compiling |")
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            judge(size, Path(folder) / f"judge_{size}")
            for line in lines(size, Path(folder), checkouts, args.layers, names=args.names):
                print(line, flush=True)


def lines(
    size: str, folder: Path, checkouts: dict[str, Path], kinds: list[str], names: bool
) -> Iterator[str]:
    """A line of the table for every way to start."""
    for layers in kinds:
        for who, checkout in checkouts.items():
            early = (checkout / "po_jax" / "annotators").exists()
            for cache in ("cold",) if early else ("cold", "warm"):
                run = folder / f"{size}_{layers}_{who}_{cache}"
                checkpoint = folder / f"judge_{size}"
                given = command(size, layers == "scanned", checkpoint, run, early=early)
                whole, log = first_step(given, checkout, folder / f"{size}_{layers}_{who}", run)
                seconds = by_part(log)
                if names:
                    yield from (" ".join(found) for found in _FINISHED.findall(log))
                parts = " | ".join(f"{seconds[part]:.1f}" for part in (*PARTS, "else"))
                rest = whole - sum(seconds.values())
                yield f"| {who} {size}, {layers}, {cache} | {whole:.1f} | {parts} | {rest:.1f} |"


if __name__ == "__main__":
    main()
