"""Drawing from the mixture with an adapter, against two models with all parameters of their own.

    python -m tests.benchmarks.lora [--rounds 9] [--rank 8]

A T5 1.1 of the given size in float32; 8 prompts of 64 tokens with 2 completions of 32 tokens each,
none of which ends before. The policy with an adapter and its reference have one base, which a
decoding step reads once for both; the same adapters with two copies of the base show what that
alone is worth. Turn by turn (A B C A B C); the medians of the times, and of the processor's times,
which count no other program's.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from po_jax.lora import LoRA
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Sampler, Strategy
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM

PROMPTS, SAMPLES, PROMPT, LENGTH, BETA = 8, 2, 64, 32, 0.125
SIZES = {"mini": (384, 8, 1536, 4), "small": (512, 6, 1024, 8), "base": (768, 12, 2048, 12)}


def base_of(size: str) -> T5LM:
    """A T5 1.1 of this size."""
    emb_dim, num_heads, mlp_dim, layers = SIZES[size]
    return T5LM(
        T5Config(
            vocab_size=32128,
            emb_dim=emb_dim,
            num_heads=num_heads,
            head_dim=64,
            mlp_dim=mlp_dim,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
            mlp_activations=("gelu", "linear"),
        )
    )


def ways(size: str, rank: int):
    """By name, a function that draws a batch; the first is what the others are compared with."""
    base = base_of(size)
    adapted = LoRA(base, rank=rank)
    reference, policy = (jax.jit(base.init)(jax.random.key(seed)) for seed in (0, 1))
    first, second = (
        jax.jit(lambda key: adapted.init(key)["adapter"])(jax.random.key(seed)) for seed in (2, 3)
    )
    second = jax.tree.map(lambda x: x + 0.01, second)
    given = {
        "two models": (base, policy, reference),
        "an adapter": (
            adapted,
            {"adapter": second, "base": reference},
            {"adapter": first, "base": reference},
        ),
        "an adapter, two copies of the base": (
            adapted,
            {"adapter": second, "base": reference},
            {"adapter": first, "base": dict(reference)},
        ),
    }
    prompts = np.random.default_rng(0).integers(2, 32000, (PROMPTS, PROMPT)).astype(np.int32)
    partitioner = make_partitioner(devices=jax.devices()[:1])
    strategy = Strategy(LENGTH, min_length=LENGTH)

    def draw(model, *params):
        sampler = Sampler(model, strategy, partitioner, PROMPTS)
        return lambda key: sampler.draw(*params, prompts, (BETA,) * SAMPLES, key)

    return {name: draw(*each) for name, each in given.items()}


def main() -> None:
    """Prints a row a way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    draws = ways(given.size, given.rank)
    times = {name: [] for name in draws}
    for turn in range(given.rounds + 1):
        for name, draw in draws.items():
            began = time.perf_counter(), time.process_time()
            rollout = jax.block_until_ready(draw(jax.random.key(turn)))
            assert bool(jnp.all(rollout.mask[..., :-1]))
            if turn:  # The first compiles.
                took = time.perf_counter() - began[0], time.process_time() - began[1]
                times[name].append(took)
    medians = {name: np.median(each, axis=0) for name, each in times.items()}
    whole = medians["two models"]
    for name, median in medians.items():
        wall, processor = median / whole
        print(
            f"{name:36} {median[0]:7.3f} s ({wall:.2f})   processor {median[1]:7.3f} s "
            f"({processor:.2f})"
        )


if __name__ == "__main__":
    main()
