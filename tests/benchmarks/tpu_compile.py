"""Compiles the policy step of T5-XXL for a TPU pod that is not there, and prints its memory.

    pip install libtpu    (the version that `pip install 'jax[tpu]'` asks for)
    python -m tests.benchmarks.tpu_compile [--topology v5p:4x4x4] [--partitions 8] ...

Nothing runs: the step is lowered and compiled ahead of time against a description of the pod. The
figures are the compiler's own, per chip; a v5p chip has 95 GiB.
"""

import argparse
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
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.optimizers import adafactor
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
    relative_bias="per_layer",
    scan_layers=True,
    remat_policy="full",
)
GIB = 2**30


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--topology", default="v5p:4x4x4")
    parser.add_argument("--partitions", type=int, default=8, help="chips that share one model")
    parser.add_argument("--batch", type=int, default=256, help="prompts, two completions each")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--completion", type=int, default=128)
    args = parser.parse_args()

    pod = topologies.get_topology_desc(args.topology, "tpu")
    partitioner = make_partitioner(args.partitions, parameter_dims=2, devices=pod.devices)
    model = PolicyModel(
        language_model=T5LM(XXL),
        objective=functools.partial(
            objectives.contrastive, loss=functools.partial(pairwise.ipo, tau=0.1)
        ),
    )
    axes = model.parameter_axes()
    optimizer = adafactor(1e-3, axes=axes)

    def create(key):
        return TrainState.create(model.get_initial_variables(key)["params"], optimizer)

    state = jax.eval_shape(create, jax.random.key(0))
    shardings = state_shardings(state, axes, partitioner)
    step = make_train_step(model, optimizer, partitioner, shardings)
    pair = (args.batch, 2)
    batch = PreferenceBatch(
        prompt=jax.ShapeDtypeStruct((args.batch, args.prompt), jnp.int32),
        completion=jax.ShapeDtypeStruct((*pair, args.completion), jnp.int32),
        mask=jax.ShapeDtypeStruct((*pair, args.completion), bool),
        preference=jax.ShapeDtypeStruct((args.batch,), jnp.float32),
        reference_logprob=jax.ShapeDtypeStruct(pair, jnp.float32),
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    print(f"T5-XXL: {count / 1e9:.2f}e9 parameters, float32; {args.topology}: {pod.devices[0]}")
    print(f"mesh {dict(partitioner.mesh.shape)}, {args.batch} prompts of {args.prompt} tokens,")
    print(f"2 completions of {args.completion} tokens each; bfloat16, full rematerialisation")

    began = time.monotonic()
    lowered = step.lower(state, batch, jax.eval_shape(lambda: jax.random.key(0)))
    print(f"lowered in {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    compiled = lowered.compile()
    print(f"compiled in {time.monotonic() - began:.0f} s")
    memory = compiled.memory_analysis()
    print("per chip, GiB:")
    for name in ("argument", "output", "alias", "temp", "generated_code"):
        print(f"  {name:15s} {getattr(memory, f'{name}_size_in_bytes') / GIB:8.3f}")
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes
    total += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    print(f"  {'in all':15s} {total / GIB:8.3f}")
    flops = compiled.cost_analysis().get("flops")
    if flops:
        print(f"  {flops / 1e12:.1f} TFLOP a step and chip, as the compiler counts (scans once)")


if __name__ == "__main__":
    main()
