"""Holds plans against measurements on this machine's CPU: bytes and seconds of a run's programs.

    python -m tests.benchmarks.plan

For each network, a process of its own plans on one CPU device as `launch.plan` does, then allocates
the same state and runs the step and the sampler. Predicted bytes are the plan's; measured ones are
the growth of the process's peak while the program runs, beside what it holds. The chip of the
roofline is measured first: a large matrix product, and a copy of memory.
"""

import dataclasses
import functools
import os
import subprocess
import sys
import threading
import time

os.environ["JAX_PLATFORMS"] = "cpu"
# Freed pages return to the system at once, so that what is resident is what is in use.
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "0")
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "65536")

import jax
import jax.numpy as jnp

from po_jax.data import layouts
from po_jax.losses import objectives, pairwise
from po_jax.models import PolicyModel
from po_jax.partitioning import make_partitioner
from po_jax.planning import cost, programs
from po_jax.planning.chips import CHIPS, Topology
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.loop import Trainer
from po_jax.training.offline_feed import OfflineFeed
from po_jax.training.optimizers import Adafactor

MIB = 2**20
T5 = dict(vocab_size=32128, mlp_activations=("gelu", "linear"), dtype="float32")
T5 |= dict(scan_layers=True, shared_relative_bias=False)
NETWORKS = {
    "mini": dict(
        emb_dim=256, num_heads=4, num_encoder_layers=4, num_decoder_layers=4, mlp_dim=1024
    ),
    "small": dict(
        emb_dim=512, num_heads=6, num_encoder_layers=8, num_decoder_layers=8, mlp_dim=1024
    ),
}
LENGTHS = {"inputs": 128, "targets": 32}
DRAWING = programs.Drawing(
    LENGTHS["targets"], (0.125, 0.125), False, 1, None, tuple(LENGTHS.values())
)


def trainer(network: str, batch_size: int) -> Trainer:
    """An IPO run of a T5 1.1 in float32."""
    model = T5LM(T5Config(**T5, **NETWORKS[network]))
    return Trainer(
        model=PolicyModel(
            language_model=model,
            objective=functools.partial(objectives.contrastive, loss=pairwise.ipo, tau=0.1),
        ),
        optimizer=Adafactor(1e-3, axes=model.parameter_axes()),
        feed=OfflineFeed,
        data=lambda: programs.made_up(layouts.Prompts(LENGTHS), batch_size),
        partitioner=make_partitioner(devices=jax.devices()[:1]),
        model_dir="nowhere",
        total_steps=1,
    )


def this_machine() -> Topology:
    """One CPU device whose figures are measured: a product of matrices, and a copy."""
    side, size = 3000, 2**28
    x = jnp.ones((side, side))
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    flops = 2 * side**3 / fastest(lambda: product(x).block_until_ready())
    y = jnp.ones(size // 4)
    bandwidth = 2 * size / fastest(lambda: copy(y).block_until_ready())
    measured = dataclasses.replace(CHIPS["cpu"], flops=flops, bandwidth=bandwidth)
    CHIPS["cpu"] = measured
    return Topology("cpu", (1,))


def fastest(run, times: int = 4) -> float:
    """Seconds of the fastest of several runs, after one."""
    run()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return min(taken)


class Peak:
    """The most bytes that are resident while its context lasts."""

    def __enter__(self):
        self.bytes, self._stop = resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.002):
            self.bytes = max(self.bytes, resident())

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def arguments(compiled):
    """Arrays of ones for a compiled program."""

    def ones(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.ones(leaf.shape, leaf.dtype)

    return jax.tree.map(ones, compiled.args_info)


def measure(network: str, batch_size: int, name: str) -> None:
    """Prints a line of the table."""
    topology = this_machine()
    work = programs.work_of(trainer(network, batch_size), DRAWING, False)
    program = work.programs[name]
    found = cost.cost_of(program, topology)
    predicted = program.given + sum(found.memory.values()) - found.memory["code"]
    compiled = program.traced.lower().compile()
    before = resident()
    args, kwargs = arguments(compiled)
    with Peak() as peak:
        out = jax.block_until_ready(compiled(*args, **kwargs))
    measured = peak.bytes - before
    del out

    def run():
        args, kwargs = arguments(compiled)
        jax.block_until_ready((args, kwargs))
        began = time.perf_counter()
        jax.block_until_ready(compiled(*args, **kwargs))
        return time.perf_counter() - began

    seconds = min(run() for _ in range(3))
    print(
        f"| {network} | {batch_size} | {name} | {predicted / MIB:.0f} | {measured / MIB:.0f} | "
        f"{predicted / measured - 1:+.1%} | {found.roofline:.3f} | {seconds:.3f} | "
        f"{seconds / found.roofline:.1f} | {found.bound} |",
        flush=True,
    )


def main() -> None:
    if len(sys.argv) > 1:
        return measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    print(
        "| network | prompts | program | MiB planned | MiB measured | off by | s planned |", end=""
    )
    print(" s measured | factor | bound by |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for network in NETWORKS:
        for batch_size in (8, 32):
            for name in ("sampler", "step"):
                command = [sys.executable, "-m", "tests.benchmarks.plan"]
                subprocess.run([*command, network, str(batch_size), name], check=True)


if __name__ == "__main__":
    main()
