"""Mixture sampling and an IPO step beside Hugging Face T5 on PyTorch, on this machine's CPU.

    python -m tests.benchmarks.against_torch mini small [--rounds 5] [--what sampling step]

Same sizes, float32, same number of threads, in turn (A B C, A B C, ...) with a pause between, since
PyTorch's OpenMP threads spin for a while after each run. Two opponents:

  plain  the best code one can write with transformers: encoders run once a prompt, two decoders in
         lockstep with a cache each, the mixture's token drawn from its softmax;
  trl    what TRL's trainers do: the encoder runs for every completion, the whole log-softmax is
         formed, and mixture sampling has no cache (gradient checkpointing, its default, has none):
         that takes minutes, so it is timed once, without a warm-up.

An IPO step is: log mu and log pi of both completions, loss, gradient, AdamW. Ratios are opponent /
po_jax, medians over rounds. The machine must be otherwise idle.
"""

import argparse
from functools import partial
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional
import transformers
from transformers.modeling_outputs import BaseModelOutput

from po_jax.logprobs import sequence_logprob
from po_jax.losses import objectives, pairwise
from po_jax.models import PolicyModel
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Strategy, sample
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.optimizers import adamw
from po_jax.training.state import initial_state, state_shardings
from po_jax.training.step import make_train_step
from po_jax.types import PreferenceBatch

SIZES = {
    "mini": {"emb_dim": 256, "num_heads": 4, "mlp_dim": 1024, "layers": 4},
    "small": {"emb_dim": 512, "num_heads": 8, "mlp_dim": 2048, "layers": 6},
}
BATCH, PROMPT, COMPLETION, VOCAB, BETA, TAU = 8, 256, 64, 32128, 0.125, 0.1
PAUSE = 0.5


class Ours:
    def __init__(self, emb_dim, num_heads, mlp_dim, layers):
        config = T5Config(
            vocab_size=VOCAB,
            emb_dim=emb_dim,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
            logits_via_embedding=True,
            dropout_rate=0.0,
        )
        self.model = T5LM(config)
        self.strategy = Strategy(COMPLETION, min_length=COMPLETION)
        policy = PolicyModel(
            language_model=self.model,
            objective=partial(objectives.contrastive, loss=partial(pairwise.ipo, tau=TAU)),
        )
        partitioner = make_partitioner(1, devices=jax.devices()[:1])
        axes = policy.parameter_axes()
        optimizer = adamw(1e-5)
        init = jax.jit(self.model.init)
        self.reference = init(jax.random.key(1))
        self.policy = init(jax.random.key(0))
        self.state = initial_state(self.model.init, axes, optimizer, partitioner, jax.random.key(0))
        shardings = state_shardings(self.state, axes, partitioner)
        self.update = make_train_step(policy, optimizer, partitioner, shardings)
        self.score = jax.jit(self.model.score)
        self.key = jax.random.key(2)

    def sampling(self, prompt, completion):
        beta = jnp.full((BATCH, 1), BETA)
        args = (self.policy, self.reference, jnp.asarray(prompt), beta, self.key)
        jax.block_until_ready(sample(self.model, self.strategy, *args))

    def step(self, prompt, completion):
        prompt, completion = jnp.asarray(prompt), jnp.asarray(completion)
        mask = completion > 0
        reference = sequence_logprob(self.score(self.reference, prompt, completion, mask), mask)
        batch = PreferenceBatch(prompt, completion, mask, jnp.ones(BATCH), reference)
        self.state, metrics = self.update(self.state, batch, self.key)
        jax.block_until_ready(metrics)


class Torch:
    """Hugging Face T5; `plain` tells the best plain code from the way TRL computes."""

    def __init__(self, emb_dim, num_heads, mlp_dim, layers, plain):
        config = transformers.T5Config(
            vocab_size=VOCAB,
            d_model=emb_dim,
            d_kv=64,
            d_ff=mlp_dim,
            num_layers=layers,
            num_decoder_layers=layers,
            num_heads=num_heads,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
        torch.manual_seed(0)
        self.policy = transformers.T5ForConditionalGeneration(config)
        self.reference = transformers.T5ForConditionalGeneration(config).eval()
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-5)
        self.plain = plain

    @torch.no_grad()
    def sampling(self, prompt, completion):
        prompt = torch.from_numpy(prompt).long()
        attention = torch.ones_like(prompt)
        models = (self.policy, self.reference)
        encoded = [model.encoder(prompt, attention_mask=attention) for model in models]
        caches = [None, None]
        tokens = torch.zeros((BATCH, 1), dtype=torch.long)
        for _ in range(COMPLETION):
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
                logprobs.append(functional.log_softmax(out.logits[:, -1], dim=-1))
            mixed = functional.softmax((1 - BETA) * logprobs[0] + BETA * logprobs[1], dim=-1)
            token = torch.multinomial(mixed, 1)
            for row in logprobs:
                row.gather(1, token)
            tokens = torch.cat([tokens, token], dim=1)

    def _score(self, model, prompt, completion):
        rows = completion.reshape(2 * BATCH, COMPLETION)
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
                logits.flatten(0, 1), rows.flatten(), reduction="none"
            )
            return -losses.reshape(BATCH, 2, COMPLETION).sum(-1)
        logits = model(
            input_ids=repeated, attention_mask=attention, decoder_input_ids=inputs
        ).logits
        logprobs = logits.log_softmax(-1).gather(2, rows[..., None])
        return logprobs.reshape(BATCH, 2, COMPLETION).sum(-1)

    def step(self, prompt, completion):
        prompt, completion = (torch.from_numpy(x).long() for x in (prompt, completion))
        with torch.no_grad():
            reference = self._score(self.reference, prompt, completion)
        ratio = self._score(self.policy, prompt, completion) - reference
        loss = torch.square(ratio[:, 0] - ratio[:, 1] - 1 / (2 * TAU)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def seconds(run):
    time.sleep(PAUSE)
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def ceilings():
    """GFLOP/s of a large float32 matrix product, the better of both libraries; GB/s of a sum."""
    size = 2048
    ours, theirs = jnp.ones((size, size)), torch.ones((size, size))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(ours, ours))
    times = [seconds(lambda: jax.block_until_ready(product(ours, ours))) for _ in range(5)]
    times += [seconds(lambda: theirs @ theirs) for _ in range(5)]
    big = torch.ones(64 * 2**20)
    read = min(seconds(big.sum) for _ in range(5))
    return 2 * size**3 / min(times) / 1e9, big.numel() * 4 / read / 1e9


def work(emb_dim, num_heads, mlp_dim, layers):
    """GFLOP of the matrix products of an IPO step; GB of weights read for one mixture token."""
    width = 64 * num_heads
    attention, feed_forward = 4 * emb_dim * width, 2 * emb_dim * mlp_dim
    encoder, decoder = layers * (attention + feed_forward), layers * (attention + feed_forward)
    cross = layers * 2 * emb_dim * width  # Queries and outputs; keys and values: once a prompt.
    head = VOCAB * emb_dim
    source, target = BATCH * PROMPT, 2 * BATCH * COMPLETION
    products = source * (encoder + cross) + target * (decoder + cross + head)
    scores = layers * width * 2 * (source * PROMPT + target * (COMPLETION + PROMPT))
    # Forward and backward of the policy (3 passes) and the reference's forward.
    flops = 2 * (products + scores) * 4
    return flops / 1e9, 2 * 4 * (decoder + 2 * cross + head) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sizes", nargs="+", choices=SIZES)
    parser.add_argument("--what", nargs="+", choices=["sampling", "step"], default=None)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(f"jax {jax.__version__}, torch {torch.__version__}, transformers "
          f"{transformers.__version__}, {torch.get_num_threads()} threads")  # fmt: skip
    flop_ceiling, bandwidth = ceilings()
    print(f"ceilings: {flop_ceiling:.0f} GFLOP/s float32, {bandwidth:.1f} GB/s read")
    rng = np.random.default_rng(0)
    prompt = rng.integers(2, 32000, (BATCH, PROMPT), dtype=np.int32)
    completion = rng.integers(2, 32000, (BATCH, 2, COMPLETION), dtype=np.int32)
    for size in args.sizes:
        contestants = {
            "po_jax": Ours(**SIZES[size]),
            "plain": Torch(**SIZES[size], plain=True),
            "trl": Torch(**SIZES[size], plain=False),
        }
        gflop, gigabytes = work(**SIZES[size])
        for what in args.what or ("sampling", "step"):
            runs = {
                name: partial(getattr(each, what), prompt, completion)
                for name, each in contestants.items()
            }
            times = {name: [] for name in runs}
            if what == "sampling":
                times["trl"].append(seconds(runs.pop("trl")))
            for run in runs.values():
                for _ in range(2):  # The first call compiles, the second settles the allocators.
                    run()
            for _ in range(args.rounds):
                for name, run in runs.items():
                    times[name].append(seconds(run))
            ours = times["po_jax"]
            for name, values in times.items():
                median = statistics.median(values)
                if what == "sampling":
                    rate = f"{BATCH * COMPLETION / median:7.1f} tokens/s"
                    share = COMPLETION * gigabytes / median / bandwidth
                    share = f"{share:4.0%} of the bandwidth bound"
                else:
                    rate = f"{median:7.3f} s a step"
                    share = f"{gflop / median / flop_ceiling:4.0%} of the matrix ceiling"
                ratio = statistics.median(t / o for t, o in zip(values, ours, strict=False))
                print(f"{size:6s} {what:9s} {name:7s} {rate}  {share}  "
                      f"{ratio:5.2f} x po_jax's time (min {min(values):.3f} s)")  # fmt: skip


if __name__ == "__main__":
    main()
