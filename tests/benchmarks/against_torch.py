"""Mixture sampling and an IPO step beside Hugging Face T5 on PyTorch, on this machine's GPU or CPU.

    python -m tests.benchmarks.against_torch mini small
    python -m tests.benchmarks.against_torch large --dtype bfloat16 --prompt 512 --completion 128 \
        --batch 8 32 128 512 --opponents plain

Same sizes, dtype and number of threads, in turn (A B C, A B C, ...) with a pause between, since
PyTorch's OpenMP threads spin for a while after each run. Each batch, prompt and completion length
is measured with each of the others. Two opponents:

  plain  the best code one can write with transformers: encoders run once a prompt, two decoders in
         lockstep with a cache each, the mixture's token drawn from its softmax;
  trl    what TRL's trainers do: the encoder runs for every completion, the whole log-softmax is
         formed, and mixture sampling has no cache (gradient checkpointing, its default, has none):
         that takes minutes, so it is timed once, without a warm-up.

An IPO step is: log mu and log pi of both completions, loss, gradient, AdamW. In bfloat16 our
parameters and optimiser stay float32 and PyTorch's are bfloat16 too, which is less work. Ratios are
opponent / po_jax, medians over rounds. The machine must be otherwise idle.
"""

import argparse
from functools import partial
import itertools
import os
import statistics
import time

# PyTorch needs its share of a GPU's memory, most of which JAX would reserve.
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional
import transformers
from transformers.modeling_outputs import BaseModelOutput

from po_jax.t5.config import REMAT_POLICIES
from tests.benchmarks.hugging_face_t5 import fresh
from tests.benchmarks.t5_work import BETA, SIZES, TAU, Ours, work

PAUSE = 0.5
DEVICE = "cuda" if jax.default_backend() == "gpu" else "cpu"


class Torch:
    """Hugging Face T5; `plain` tells the best plain code from the way TRL computes."""

    def __init__(self, emb_dim, num_heads, mlp_dim, layers, dtype, plain):
        torch.manual_seed(0)
        self.policy, self.reference = (
            fresh(emb_dim, num_heads, mlp_dim, layers).to(DEVICE, getattr(torch, dtype))
            for _ in range(2)
        )
        self.reference.eval()
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-5)
        self.plain = plain

    @torch.no_grad()
    def sampling(self, prompt, completion):
        prompt = torch.from_numpy(prompt).long().to(DEVICE)
        attention = torch.ones_like(prompt)
        models = (self.policy, self.reference)
        encoded = [model.encoder(prompt, attention_mask=attention) for model in models]
        caches = [None, None]
        tokens = torch.zeros((len(prompt), 1), dtype=torch.long, device=DEVICE)
        for _ in range(completion.shape[-1]):
            logprobs = []
            for i, model in enumerate(models):
                out = model(
                    encoder_outputs=encoded[i],
                    attention_mask=attention,
                    decoder_input_ids=tokens[:, -1:] if self.plain else tokens,
                    past_key_values=caches[i],
                    use_cache=self.plain,
                )
                caches[i] = out.past_key_values if self.plain else None
                logprobs.append(functional.log_softmax(out.logits[:, -1].float(), dim=-1))
            mixed = functional.softmax((1 - BETA) * logprobs[0] + BETA * logprobs[1], dim=-1)
            token = torch.multinomial(mixed, 1)
            for row in logprobs:
                row.gather(1, token)
            tokens = torch.cat([tokens, token], dim=1)
        _wait()

    def _score(self, model, prompt, completion):
        rows = completion.flatten(0, 1)
        inputs = functional.pad(rows, (1, 0))[:, :-1]
        repeated = prompt.repeat_interleave(2, dim=0)
        attention = torch.ones_like(repeated)
        if self.plain:
            states = model.encoder(prompt, attention_mask=torch.ones_like(prompt))[0]
            encoded = BaseModelOutput(states.repeat_interleave(2, dim=0))
            logits = model(
                encoder_outputs=encoded, attention_mask=attention, decoder_input_ids=inputs
            ).logits
            losses = functional.cross_entropy(
                logits.float().flatten(0, 1), rows.flatten(), reduction="none"
            )
            return -losses.reshape(completion.shape).sum(-1)
        logits = model(
            input_ids=repeated, attention_mask=attention, decoder_input_ids=inputs
        ).logits
        logprobs = logits.float().log_softmax(-1).gather(2, rows[..., None])
        return logprobs.reshape(completion.shape).sum(-1)

    def step(self, prompt, completion):
        prompt, completion = (torch.from_numpy(x).long().to(DEVICE) for x in (prompt, completion))
        with torch.no_grad():
            reference = self._score(self.reference, prompt, completion)
        ratio = self._score(self.policy, prompt, completion) - reference
        loss = torch.square(ratio[:, 0] - ratio[:, 1] - 1 / (2 * TAU)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        _wait()


def _wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def seconds(run):
    time.sleep(PAUSE)
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def ceilings(dtype):
    """GFLOP/s of a large matrix product, the better of both libraries; GB/s of reading memory."""
    size, times = 8192 if DEVICE == "cuda" else 2048, []
    ours = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    theirs = torch.randn((size, size), device=DEVICE, dtype=getattr(torch, dtype))
    big = torch.ones((2**30 if DEVICE == "cuda" else 2**26,), device=DEVICE)
    product = jax.jit(jnp.matmul)
    candidates = (
        lambda: jax.block_until_ready(product(ours, ours)),
        lambda: (theirs @ theirs, _wait()),
        lambda: (big.sum(), _wait()),
    )
    for run in candidates:
        run()
        times.append(min(seconds(run) for _ in range(5)))
    return 2 * size**3 / min(times[:2]) / 1e9, big.numel() * 4 / times[2] / 1e9


def measure(runs, rounds, warm_up=2):
    """Seconds of each run in each round after the warm-up; none of one that needs too much memory.

    The first call compiles, the second settles the allocators.
    """
    times = {name: [] for name in runs}
    for number in range(warm_up + rounds):
        for name, run in list(runs.items()):
            try:
                taken = seconds(run)
            except (torch.OutOfMemoryError, jax.errors.JaxRuntimeError) as error:
                if isinstance(error, jax.errors.JaxRuntimeError) and "EXHAUSTED" not in str(error):
                    raise
                del runs[name]
                times[name].clear()
                continue
            if number >= warm_up:
                times[name].append(taken)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sizes", nargs="+", choices=SIZES)
    parser.add_argument("--what", nargs="+", choices=["sampling", "step"])
    parser.add_argument("--opponents", nargs="*", choices=["plain", "trl"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", nargs="+", type=int, default=[8], help="prompts")
    parser.add_argument("--prompt", nargs="+", type=int, default=[256], help="tokens")
    parser.add_argument("--completion", nargs="+", type=int, default=[64], help="tokens")
    parser.add_argument("--remat", choices=REMAT_POLICIES, default="none", help="of our step")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(
        f"jax {jax.__version__}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {jax.devices()[0].device_kind}, "
        f"{torch.get_num_threads()} threads, {args.dtype}"
    )
    flop_ceiling, bandwidth = ceilings(args.dtype)
    print(f"ceilings: {flop_ceiling:.0f} GFLOP/s {args.dtype}, {bandwidth:.1f} GB/s read")
    for size in args.sizes:
        contestants = {"po_jax": Ours(**SIZES[size], dtype=args.dtype, remat_policy=args.remat)}
        for name in ("plain", "trl") if args.opponents is None else args.opponents:
            contestants[name] = Torch(**SIZES[size], dtype=args.dtype, plain=name == "plain")
        cases = itertools.product(args.batch, args.prompt, args.completion)
        for what, case in itertools.product(args.what or ("sampling", "step"), cases):
            compare(size, what, case, contestants, args, (flop_ceiling, bandwidth))


def compare(size, what, case, contestants, args, ceilings):
    """A line for each contestant: its rate, its share of the ceiling, and its time beside ours."""
    (batch, prompt_length, length), (flop_ceiling, bandwidth) = case, ceilings
    rng = np.random.default_rng(0)
    prompt = rng.integers(2, 32000, (batch, prompt_length), dtype=np.int32)
    completion = rng.integers(2, 32000, (batch, 2, length), dtype=np.int32)
    gflop, gigabytes = work(
        **SIZES[size],
        batch=batch,
        prompt=prompt_length,
        completion=length,
        itemsize=jnp.dtype(args.dtype).itemsize,
    )
    runs = {
        name: partial(getattr(each, what), prompt, completion) for name, each in contestants.items()
    }
    once = {"trl": runs.pop("trl")} if what == "sampling" and "trl" in runs else {}
    times = measure(runs, args.rounds) | measure(once, rounds=1, warm_up=0)
    for name, values in times.items():
        label = f"{size} {what} {batch:4d} x ({prompt_length:4d} -> {length:4d}) {name:7s}"
        if not values:
            print(f"{label} out of memory")
            continue
        median = statistics.median(values)
        if what == "sampling":
            rate = f"{batch * length / median:9.1f} tokens/s"
            share = f"{gigabytes / median / bandwidth:4.0%} of the bandwidth bound"
        else:
            rate = f"{median:9.4f} s a step"
            share = f"{gflop / median / flop_ceiling:4.0%} of the matrix ceiling"
        pairs = zip(values, times["po_jax"], strict=False)
        ratios = [theirs / ours for theirs, ours in pairs]
        ratio = f"{statistics.median(ratios):5.2f} x po_jax's time" if ratios else ""
        print(f"{label} {rate}  {share}  {ratio} (min {min(values):.4f} s)", flush=True)


if __name__ == "__main__":
    main()
