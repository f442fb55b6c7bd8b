"""What a GPU makes of po_jax, when there are minutes to find out: what matters most comes first.

    python -m tests.benchmarks.gpu                      # five minutes
    python -m tests.benchmarks.gpu --seconds 600 --sizes large base small

Every line is printed as soon as it is known, and nothing new is begun once `--seconds` have passed.
It tells the device's ceilings (a matrix product in bfloat16, reading memory); then for T5-large,
-base and -small an IPO step against the matrix ceiling and mixture sampling against the bandwidth
bound, of prompts of 512 tokens and completions of 128, in bfloat16, with parameters in float32 and
layers scanned: compilation, the median of some rounds, the most memory used until then, and the
twenty kernels that take most time; last, plain transformers beside it, where PyTorch sees the GPU.
Parameters are cheap numbers that no compiler spends minutes on. On a CPU, `--sizes tiny` tries out
whether all of it runs.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
import os
from pathlib import Path
import statistics
import tempfile
import time

# PyTorch needs its share of a GPU's memory, most of which JAX would reserve.
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.7")

import jax
import jax.numpy as jnp
import numpy as np

from tests.benchmarks.t5_work import SIZES, Ours, work

TINY = {"emb_dim": 128, "num_heads": 2, "mlp_dim": 256, "layers": 2}
PROMPT, COMPLETION = 512, 128
STEP_BATCHES, SAMPLING_BATCHES = (32, 64), (128, 512, 32)
ROUNDS, KERNELS = 5, 20


def cheap(model, key):
    """Parameters of the model, between -0.05 and 0.05, in one small program."""
    shift = jax.random.uniform(key)
    leaves, tree = jax.tree.flatten(jax.eval_shape(model.init, key))

    def waves(leaf, number):
        places = jax.lax.iota(jnp.float32, leaf.size).reshape(leaf.shape)
        return (0.05 * jnp.sin(places * 12.9898 + number + shift)).astype(leaf.dtype)

    return jax.tree.unflatten(tree, [waves(leaf, i) for i, leaf in enumerate(leaves)])


def median_seconds(run: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Of a call, after one more that settles the allocators."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def ceilings(small: bool) -> tuple[float, float]:
    """GFLOP/s of a product of two matrices in bfloat16, and GB/s of reading memory."""
    size, length = (512, 2**22) if small else (8192, 2**30)
    matrix = jnp.ones((size, size), jnp.bfloat16)
    many = jnp.ones((length,), jnp.float32)
    product, total = jax.jit(jnp.matmul), jax.jit(jnp.sum)
    flops = 2 * size**3 / median_seconds(lambda: product(matrix, matrix), 10)
    return flops / 1e9, 4 * length / median_seconds(lambda: total(many), 10) / 1e9


def kernels(run: Callable[[], object]) -> Counter[str]:
    """Seconds by the name of the kernel, of one call."""
    found = Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        for file in Path(folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
                for line in plane.lines:
                    for event in line.events:
                        if _ran(plane.name, line.name, event):
                            found[event.name] += event.duration_ns / 1e9
    return found


def _ran(plane: str, line: str, event) -> bool:
    """Whether an event is a kernel: a device's streams have nothing else, a host's threads do."""
    if plane.startswith("/device:"):
        return line.startswith("Stream")
    return plane.startswith("/host:CPU") and any(name == "hlo_op" for name, _ in event.stats)


def memory() -> str:
    """The most that was used at once so far."""
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return "memory unknown" if peak is None else f"peak so far {peak / 2**30:.1f} GiB"


class Bench:
    """One size after the other, as lines.

    Args:
      small: for a trial on a CPU.
    """

    def __init__(self, small: bool):
        self._small = small
        self._rng = np.random.default_rng(0)
        self._flops, self._bandwidth = ceilings(small)
        self._lengths = (32, 16) if small else (PROMPT, COMPLETION)

    def say_ceilings(self) -> Iterator[str]:
        """What everything else is held against."""
        yield f"ceilings: {self._flops:.0f} GFLOP/s bfloat16, {self._bandwidth:.0f} GB/s read"

    def works(self, sizes: list[str]) -> Iterator[Callable[[], Iterator[str]]]:
        """All there is to do, what matters most first."""
        yield self.say_ceilings
        for size in sizes:
            ours = None

            def made(size=size):
                nonlocal ours
                ours = ours or Ours(
                    **_size(size),
                    init=cheap,
                    dtype="bfloat16",
                    scan_layers=True,
                    shared_relative_bias=False,
                    remat_policy="minimal",
                )
                return ours

            for what, batches in (("step", STEP_BATCHES), ("sampling", SAMPLING_BATCHES)):
                for batch in batches[:1] if self._small else batches:
                    yield partial(self.ours, size, made, what, batch)
        for size in sizes:
            yield partial(self.theirs, size)

    def _given(self, batch: int):
        prompt, length = self._lengths
        return (
            self._rng.integers(2, 32000, (batch, prompt), dtype=np.int32),
            self._rng.integers(2, 32000, (batch, 2, length), dtype=np.int32),
        )

    def _share(self, size: str, what: str, batch: int, seconds: float) -> str:
        prompt, length = self._lengths
        gflop, gigabytes = work(
            **_size(size), batch=batch, prompt=prompt, completion=length, itemsize=2
        )
        if what == "step":
            share = gflop / seconds / self._flops
            return f"{seconds:.4f} s, {share:.1%} of the matrix ceiling"
        share = gigabytes / seconds / self._bandwidth
        return f"{batch * length / seconds:.0f} tokens/s, {share:.1%} of the bandwidth bound"

    def ours(self, size: str, made: Callable[[], Ours], what: str, batch: int) -> Iterator[str]:
        """po_jax's time, and its kernels."""
        run = partial(getattr(made(), what), *self._given(batch))
        label = f"{size} {what}, batch {batch}"
        began = time.perf_counter()
        run()
        first = time.perf_counter() - began
        seconds = median_seconds(run)
        yield (
            f"{label}: {self._share(size, what, batch, seconds)}; first call {first:.1f} s; "
            f"{memory()}"
        )
        found = kernels(run)
        whole = sum(found.values())
        for name, spent in found.most_common(KERNELS):
            yield f"    {spent / whole:6.1%} {1e3 * spent:9.3f} ms  {name[:80]}"

    def theirs(self, size: str) -> Iterator[str]:
        """Plain transformers, beside the lines above."""
        try:
            import torch

            from tests.benchmarks.against_torch import Torch
        except ImportError as error:
            yield f"{size}: transformers on PyTorch are not here ({error})"
            return
        if not (self._small or torch.cuda.is_available()):
            yield f"{size}: PyTorch sees no GPU"
            return
        plain = Torch(**_size(size), dtype="bfloat16", plain=True)
        for what, batches in (("step", STEP_BATCHES), ("sampling", SAMPLING_BATCHES)):
            run = partial(getattr(plain, what), *self._given(batches[0]))
            try:
                seconds = median_seconds(run)
            except torch.OutOfMemoryError:
                yield f"{size} {what}, batch {batches[0]}: transformers are out of memory"
            else:
                told = self._share(size, what, batches[0], seconds)
                yield f"{size} {what}, batch {batches[0]}: transformers: {told}"


def _size(name: str) -> dict[str, int]:
    return TINY if name == "tiny" else SIZES[name]


def main() -> None:
    """Works until all is done or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="nothing new after these")
    parser.add_argument("--sizes", nargs="+", choices=["tiny", *SIZES])
    given = parser.parse_args()
    sizes = given.sizes or ["large", "base", "small"]
    began = time.perf_counter()
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.device_kind}", flush=True)
    for do in Bench(sizes == ["tiny"]).works(sizes):
        if time.perf_counter() - began > given.seconds:
            print(f"[{given.seconds:g} s have passed: the rest is left out]")
            break
        for line in do():
            print(f"[{time.perf_counter() - began:5.1f} s] {line}", flush=True)


if __name__ == "__main__":
    main()
