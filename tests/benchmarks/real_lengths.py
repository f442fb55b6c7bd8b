"""Posts and summaries as long as people write them: mixture sampling, an IPO step, online IPO-MD.

    git worktree add ../former 5ac7f34
    python -m tests.benchmarks.real_lengths mini small --former ../former

64 posts of TL;DR in T5's vocabulary, cut at 512 and 64 tokens; a drawn completion ends where
people's summary of its post does, whoever draws it: from the mixture, or from one model alone.
Contestants are processes of their own that take turns:

  po_jax  this checkout, in batches as the data has them, with the groups that it makes of them;
  former  po_jax of another checkout;
  plain, compiled, ctranslate2   see tests/benchmarks/opponents.py; one that is not installed is
          left out with a word.

An IPO step is log mu and log pi of both summaries, loss, gradient and AdamW; a step of IPO-MD
draws, has a T5 of the policy's size judge in both orders, and updates. Ratios are medians over
rounds. The machine must be otherwise idle, or seconds be those of the processor, on one core
(`taskset -c 0 ... --processor_time`), which say how much is computed and not how long it takes.
float32, all cores.
"""

import argparse
import importlib.util
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = Path(__file__).resolve().parents[2]
DATA = HERE.parent / "shared" / "data"
SIZES = {
    "tiny": {"emb_dim": 32, "num_heads": 2, "mlp_dim": 64, "layers": 2},
    "mini": {"emb_dim": 256, "num_heads": 4, "mlp_dim": 1024, "layers": 4},
    "small": {"emb_dim": 512, "num_heads": 8, "mlp_dim": 2048, "layers": 6},
}
WHAT = ("sampling", "one_model", "step", "online")
OPPONENTS = {  # what each needs, and what it does
    "plain": (("torch", "transformers"), ("sampling", "step")),
    "compiled": (("torch", "transformers"), ("step",)),
    "ctranslate2": (("torch", "transformers", "ctranslate2"), ("sampling", "one_model")),
}
VOCAB, HEAD_DIM, BETA, TAU, EOS = 32128, 64, 0.125, 0.1, 1
MOST = 129  # more than a completion has tokens
PAUSE = 0.5


def vocabulary_file():
    """T5's SentencePiece model."""
    return str(DATA / "t5_spiece" / "spiece.model")


def posts(count, limits):
    """Token ids of posts, [count, limit], and of two summaries each, [count, 2, limit]."""
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(vocabulary_file())
    rows = {}
    for record in map(json.loads, (DATA / "tldr" / "comparisons.validation.jsonl").open()):
        info, texts = record["info"], [summary["text"].strip() for summary in record["summaries"]]
        head = f"SUBREDDIT: r/{info['subreddit']}\nTITLE: {info['title']}\nPOST: "
        rows.setdefault(f"summarize: {head}{info['post']}", texts)

    def tokens(text, limit):
        ids = [*pieces.encode(text), EOS][:limit]
        return ids + [0] * (limit - len(ids))

    chosen = list(rows.items())[:count]
    prompt = [tokens(text, limits[0]) for text, _ in chosen]
    summaries = [[tokens(text, limits[1]) for text in pair] for _, pair in chosen]
    return np.array(prompt, np.int32), np.array(summaries, np.int32)


def ours(size):
    """po_jax of the checkout that this runs in."""
    from functools import partial

    import jax
    import jax.numpy as jnp

    from po_jax.logprobs import sequence_logprob
    from po_jax.losses import objectives, pairwise
    from po_jax.models import PolicyModel
    from po_jax.partitioning import make_partitioner
    from po_jax.sampling import Strategy, sample
    from po_jax.t5.config import T5Config
    from po_jax.t5.language_model import T5LM
    from po_jax.training.optimizers import adamw
    from po_jax.training.step import make_train_step
    from po_jax.types import PreferenceBatch

    partitioner, optimizer = make_partitioner(1, devices=jax.devices()[:1]), adamw(1e-5)
    try:
        from po_jax.judges import PreferenceModel
        from po_jax.judges.template import Template
        from tests.training.fresh import fresh_state

        ipo = partial(objectives.contrastive, loss=pairwise.ipo, tau=TAU)
        start = partial(fresh_state, optimizer=optimizer, partitioner=partitioner)
    except ImportError:  # as it was at 5ac7f34
        from po_jax.annotators.composition import Template

        from po_jax.models import PreferenceModel
        from po_jax.training.state import initial_state, state_shardings

        ipo = partial(objectives.contrastive, loss=partial(pairwise.ipo, tau=TAU))

        def start(init, axes):
            state = initial_state(init, axes, optimizer, partitioner, jax.random.key(7))
            return state, state_shardings(state, axes, partitioner)

    def by_length(model):
        if hasattr(partitioner, "lengths"):
            from po_jax.like_lengths import reading_by_length

            return reading_by_length(model, partitioner.lengths)
        return model  # as it was at 5ac7f34

    class Ending(T5LM):
        """Ends where it is told: a prompt's first token says after how many tokens, and more."""

        def encode(self, params, prompt, **options):
            return super().encode(params, prompt % VOCAB, **options), prompt // VOCAB

        def prefill(self, params, encoded, samples, max_length):
            own = super().prefill(params, encoded[0], samples, max_length)
            told = encoded[1][:, 0]
            ends = jnp.stack([told % MOST, told // MOST], axis=-1).reshape(-1)
            return {"own": own, "ends": ends, "step": jnp.zeros((), jnp.int32)}

        def extend(self, params, cache, tokens):
            logits, own = super().extend(params, cache["own"], tokens)
            step = cache["step"] + 1
            ends, is_eos = (step == cache["ends"])[:, None], jnp.arange(VOCAB)[None] == EOS
            return jnp.where(ends == is_eos, logits, -1e9), {**cache, "own": own, "step": step}

        def take(self, cache, prompts, rows):
            own = super().take(cache["own"], prompts, rows)
            return {**cache, "own": own, "ends": rows(cache["ends"], 0)}

    class Ours:
        def __init__(self, emb_dim, num_heads, mlp_dim, layers):
            config = T5Config(
                vocab_size=VOCAB,
                emb_dim=emb_dim,
                num_heads=num_heads,
                head_dim=HEAD_DIM,
                mlp_dim=mlp_dim,
                num_encoder_layers=layers,
                num_decoder_layers=layers,
                logits_via_embedding=True,
                dropout_rate=0.0,
            )
            self.model, self.ending = T5LM(config), Ending(config)
            policy = PolicyModel(language_model=self.model, objective=ipo)
            reading = by_length(self.model)
            self.ending = by_length(self.ending)
            template = Template(((20, 21), (22, 23), (24, 25)), (30, 31))
            judge = PreferenceModel(language_model=reading, template=template)
            init = jax.jit(self.model.init)
            self.reference, self.judge = init(jax.random.key(1)), init(jax.random.key(3))
            axes = self.model.parameter_axes()
            self.state, shardings = start(self.model.init, axes)
            self.update = make_train_step(policy, optimizer, partitioner, shardings)
            self.score, self.key = jax.jit(reading.score), jax.random.key(2)
            self.prefer = jax.jit(lambda *given: judge.predict_batch_with_aux(*given)[1])
            self.lengths = getattr(partitioner, "lengths", None)

        def cut(self, batch):
            return self.lengths.cut(batch) if self.lengths else batch

        def draw(self, prompt, completion, beta=BETA):
            ends = (completion > 0).sum(axis=-1).astype(np.int32)
            told = self.cut(prompt).copy()
            told[:, 0] += VOCAB * (ends[:, 0] + MOST * ends[:, 1])
            beta, partner = jnp.full(ends.shape, beta), self.reference if beta else None
            strategy = Strategy(completion.shape[-1])
            given = (self.state.params, partner, jnp.asarray(told), beta, self.key)
            return sample(self.ending, strategy, *given)

        def sampling(self, prompt, completion):
            drawn = jax.block_until_ready(self.draw(prompt, completion))
            assert np.array_equal(drawn.mask, completion > 0)

        def one_model(self, prompt, completion):
            jax.block_until_ready(self.draw(prompt, completion, beta=0.0))

        def learn(self, prompt, completion, mask, preference, log_mu):
            batch = PreferenceBatch(prompt, completion, mask, preference, log_mu)
            self.state, metrics = self.update(self.state, batch, self.key)
            jax.block_until_ready(metrics)

        def step(self, prompt, completion):
            batch = self.cut({"x": prompt, "y": completion, "mask": completion > 0})
            x, y, mask = (jnp.asarray(batch[name]) for name in ("x", "y", "mask"))
            log_mu = sequence_logprob(self.score(self.reference, x, y, mask), mask)
            self.learn(x, y, mask, jnp.ones(len(x)), log_mu)

        def online(self, prompt, completion):
            drawn = self.draw(prompt, completion)
            log_mu = getattr(drawn, "partner_logprob", None)
            log_mu = drawn.reference_logprob if log_mu is None else log_mu
            limit = length = drawn.mask.shape[-1]
            if self.lengths:
                length = self.lengths.fitting({limit: int(drawn.mask.sum(axis=-1).max())})[limit]
            y, mask, log_mu = (v[..., :length] for v in (drawn.completion, drawn.mask, log_mu))
            x = jnp.asarray(self.cut(prompt))
            pairs = {"prompt": x, "completion": y, "mask": mask}
            preference = self.prefer(self.judge, pairs)["preference"]
            self.learn(x, y, mask, preference, sequence_logprob(log_mu, mask))

    return Ours(**SIZES[size])


def contest(make, size, file, batch, now):
    """Does what each line says for all posts, and says how many seconds it took."""
    contestant = make(size)
    with np.load(file) as data:
        prompt, completion = data["prompt"], data["completion"]
    if getattr(contestant, "sorts", False):
        order = np.argsort((prompt > 0).sum(axis=-1), kind="stable")
        prompt, completion = prompt[order], completion[order]
    for line in sys.stdin:
        began = now()
        for at in range(0, len(prompt), batch):
            rows = slice(at, at + batch)
            getattr(contestant, line.strip())(prompt[rows], completion[rows])
        print("took", now() - began, flush=True)


def installed(name):
    """Whether an opponent can take part; says what it lacks."""
    lacks = [each for each in OPPONENTS[name][0] if importlib.util.find_spec(each) is None]
    if lacks:
        print(f"{name}: left out, as {', '.join(lacks)} is not installed")
    return not lacks


def process(kind, checkout, *given):
    """A contestant, waiting for work."""
    paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "contest", kind, *map(str, given)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def seconds(contestant, what):
    time.sleep(PAUSE)
    contestant.stdin.write(f"{what}\n")
    contestant.stdin.flush()
    for line in contestant.stdout:
        if line.startswith("took "):
            return float(line.split()[1])
    raise RuntimeError("a contestant has ended")


def cpu():
    """The processor's name and the flags that decide how fast products are."""
    words = subprocess.run(["lscpu"], capture_output=True, text=True).stdout
    facts = dict(line.split(":", 1) for line in words.splitlines() if ":" in line)
    flags = set(facts.get("Flags", "").split())
    kept = sorted(flags & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"})
    return f"{facts.get('Model name', '?').strip()} ({', '.join(kept)})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sizes", nargs="+", choices=SIZES)
    parser.add_argument("--former", type=Path, help="another checkout of po_jax")
    parser.add_argument("--opponents", nargs="*", choices=OPPONENTS, default=["plain"])
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--posts", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32, help="posts")
    parser.add_argument("--limits", nargs=2, type=int, default=[512, 64], help="tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor_time", action="store_true", help="where others compute, too")
    args = parser.parse_args()
    clock = "process_time" if args.processor_time else "perf_counter"
    prompt, completion = posts(args.posts, args.limits)
    lengths = [(rows > 0).sum(axis=-1).ravel() for rows in (prompt, completion)]
    print(f"{cpu()}, {len(os.sched_getaffinity(0))} cores; {len(prompt)} posts")
    for name, limit, found in zip(("posts", "summaries"), args.limits, lengths, strict=True):
        print(f"{name}: median {np.median(found):.0f}, longest {found.max()} of {limit} tokens")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "posts.npz"
        np.savez(file, prompt=prompt, completion=completion)
        for size in args.sizes:
            contestants = {"po_jax": process("ours", HERE, size, file, args.batch, clock)}
            if args.former:
                former = args.former.resolve()
                contestants["former"] = process("ours", former, size, file, args.batch, clock)
            for name in filter(installed, args.opponents):
                contestants[name] = process(name, HERE, size, file, args.batch, clock)
            for what in args.what:
                report(size, what, contestants, args.rounds, int(lengths[1].sum()))
            for contestant in contestants.values():
                contestant.stdin.close()
                contestant.wait()


def report(size, what, contestants, rounds, tokens):
    """Rounds in turn, and a line for each contestant."""
    taking = {
        name: contestant
        for name, contestant in contestants.items()
        if name not in OPPONENTS or what in OPPONENTS[name][1]
    }
    for _ in range(2):  # compile, and let the allocators settle
        for contestant in taking.values():
            seconds(contestant, what)
    times = {name: [] for name in taking}
    for turn in range(rounds):
        for name in list(taking)[:: 1 if turn % 2 else -1]:
            times[name].append(seconds(taking[name], what))
    for name, values in times.items():
        pairs = zip(values, times["po_jax"], strict=True)
        ratio = statistics.median(theirs / own for theirs, own in pairs)
        median = statistics.median(values)
        drawn = what in ("sampling", "one_model")
        rate = f", {tokens / median:.0f} useful tokens/s" if drawn else ""
        print(f"{size} {what} {name}: {median:.3f} s, {ratio:.2f} x po_jax's{rate}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "contest":
        kind, size, file, batch, clock = sys.argv[2:]
        if kind == "ours":
            make = ours
        else:
            from tests.benchmarks.opponents import MAKE

            make = MAKE[kind]
        contest(make, size, file, int(batch), getattr(time, clock))
    else:
        main()
