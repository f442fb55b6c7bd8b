"""Compiles T5-XXL's policy step and sampler for a TPU pod that is not there; prints their memory.

    pip install libtpu    (the version that `pip install 'jax[tpu]'` asks for)
    python -m tests.benchmarks.tpu_compile [--topology v5p:4x4x4] [--partitions 8] ...

Nothing runs: both are lowered and compiled ahead of time against a description of the pod. The
figures are the compiler's own, per chip; a v5p chip has 95 GiB.
"""

import argparse
import dataclasses
import functools
import os
import time

# No TPU is on this machine: the compiler must not look for one.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jax.experimental import topologies
import jax.numpy as jnp

from po_jax.losses import objectives, pairwise
from po_jax.models import PolicyModel
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Strategy, sample
from po_jax.t5.config import REMAT_POLICIES, T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.optimizers import Adafactor
from po_jax.training.state import TrainState, state_shardings
from po_jax.training.step import make_train_step
from po_jax.types import PreferenceBatch

XXL = T5Config(
    vocab_size=32128,
    emb_dim=4096,
    num_heads=64,
    head_dim=64,
    mlp_dim=10240,
    num_encoder_layers=24,
    num_decoder_layers=24,
    mlp_activations=("gelu", "linear"),
    dtype=jnp.bfloat16,
    shared_relative_bias=False,
    scan_layers=True,
)
GIB = 2**30


def lower_step(model, partitioner, args):
    """An IPO step with Adafactor."""
    policy = PolicyModel(
        language_model=model,
        objective=functools.partial(objectives.contrastive, loss=pairwise.ipo, tau=0.1),
    )
    axes = model.parameter_axes()
    optimizer = Adafactor(1e-3, axes=axes)
    state = jax.eval_shape(
        lambda key: TrainState.create(model.init(key), optimizer), jax.random.key(0)
    )
    shardings = state_shardings(state, axes, partitioner)
    step = make_train_step(policy, optimizer, partitioner, shardings)
    pair = (args.batch, 2)
    batch = PreferenceBatch(
        prompt=jax.ShapeDtypeStruct((args.batch, args.prompt), jnp.int32),
        completion=jax.ShapeDtypeStruct((*pair, args.completion), jnp.int32),
        mask=jax.ShapeDtypeStruct((*pair, args.completion), bool),
        preference=jax.ShapeDtypeStruct((args.batch,), jnp.float32),
        reference_logprob=jax.ShapeDtypeStruct(pair, jnp.float32),
    )
    return step.lower(state, batch, jax.eval_shape(lambda: jax.random.key(0)))


def lower_sampler(model, partitioner, args):
    """Two completions of each prompt from the mixture of policy and reference."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        partitioner.shardings(shapes, model.parameter_axes()),
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    rows = partitioner.batch
    with partitioner.activate():
        return sample.lower(
            model,
            Strategy(args.completion),
            params,
            params,
            jax.ShapeDtypeStruct((args.batch, args.prompt), jnp.int32, sharding=rows),
            jax.ShapeDtypeStruct((args.batch, 2), jnp.float32, sharding=rows),
            jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=partitioner.replicated),
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", default="v5p:4x4x4")
    parser.add_argument("--partitions", type=int, default=8, help="chips that share one model")
    parser.add_argument("--batch", type=int, default=256, help="prompts, two completions each")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--completion", type=int, default=128)
    parser.add_argument("--remat", choices=REMAT_POLICIES, default="full", help="of the step")
    args = parser.parse_args()

    pod = topologies.get_topology_desc(args.topology, "tpu")
    partitioner = make_partitioner(args.partitions, parameter_dims=2, devices=pod.devices)
    model = T5LM(dataclasses.replace(XXL, remat_policy=args.remat))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    print(f"T5-XXL: {count / 1e9:.2f}e9 parameters, float32; {args.topology}: {pod.devices[0]}")
    print(f"mesh {dict(partitioner.mesh.shape)}, {args.batch} prompts of {args.prompt} tokens,")
    print(f"2 completions of {args.completion} tokens each; bfloat16, remat_policy={args.remat}")
    for name, lower in (("sampler", lower_sampler), ("step", lower_step)):
        lowered = lower(model, partitioner, args)
        began = time.monotonic()
        compiled = lowered.compile()
        print(f"{name}: compiled in {time.monotonic() - began:.0f} s; per chip, GiB:")
        memory = compiled.memory_analysis()
        for part in ("argument", "output", "alias", "temp", "generated_code"):
            print(f"  {part:15s} {getattr(memory, f'{part}_size_in_bytes') / GIB:8.3f}")
        total = memory.argument_size_in_bytes + memory.output_size_in_bytes
        total += memory.temp_size_in_bytes - memory.alias_size_in_bytes
        print(f"  {'in all':15s} {total / GIB:8.3f}", flush=True)


if __name__ == "__main__":
    main()
