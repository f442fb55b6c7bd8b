"""A T5 judge's bill: the encoder reads whole questions, or a prompt once and the decoder the rest.

    python -m tests.benchmarks.judges mini small

64 posts of TL;DR with two summaries each, in T5's vocabulary, cut at 512 and 64 tokens, in batches
of 32: a preference model, which is asked in both orders, and a reward model, of random parameters,
in groups of like lengths. The ways to read take turns; ratios are medians over rounds. The machine
must be otherwise idle. float32, all cores.
"""

import argparse
import statistics
import time

import jax

from po_jax.judges import LearnedJudge, Pairs, PreferenceModel, RewardModel
from po_jax.judges.template import Template
from po_jax.language_model import as_read
from po_jax.partitioning import make_partitioner
from tests.benchmarks.real_lengths import cpu, posts
from tests.benchmarks.t5_work import SIZES, network

BATCH = 32
WORDS = ((20, 21, 22, 23), (24, 25), (26, 27))  # around the fields


def judges(size):
    """By name, every kind of judge and way to read, of one language model."""
    language_model = network(**SIZES[size])
    init = jax.jit(language_model.init)
    params = as_read(language_model, init(jax.random.key(0)))
    partitioner = make_partitioner(devices=jax.devices()[:1])
    for name, kind, pieces in (
        ("preference model", PreferenceModel, WORDS),
        ("reward model", RewardModel, WORDS[:2]),
    ):
        for decoded in (False, True):
            model = kind(
                language_model=language_model, template=Template(pieces, (30, 31), decoded)
            )
            yield name, decoded, LearnedJudge(model, params, partitioner)


def seconds(judge, prompt, completion):
    """Of judging all posts; and the tokens and positions that it read."""
    began, read = time.perf_counter(), []
    for at in range(0, len(prompt), BATCH):
        rows = slice(at, at + BATCH)
        judgement = judge.begin(Pairs(prompt[rows], completion[rows], completion[rows] > 0))()
        read.append(jax.block_until_ready(judgement).read.sum(axis=0))
    return time.perf_counter() - began, sum(read)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sizes", nargs="+", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    prompt, completion = posts(64, (512, 64))
    print(f"{cpu()}; {len(prompt)} posts, float32")
    for size in args.sizes:
        found = list(judges(size))
        for _ in range(2):  # compile, and let the allocator settle
            reads = [seconds(judge, prompt, completion)[1] for _, _, judge in found]
        rounds = [
            [seconds(judge, prompt, completion)[0] for _, _, judge in found]
            for _ in range(args.rounds)
        ]
        for place, (name, decoded, _) in enumerate(found):
            own, whole = ([times[i] for times in rounds] for i in (place, place - decoded))
            tokens, positions = reads[place]
            ratio = statistics.median(a / b for a, b in zip(own, whole, strict=True))
            print(
                f"{size} {name}, {'decoder' if decoded else 'encoder'} reads completions: "
                f"{statistics.median(own):.3f} s, {ratio:.2f} of the encoder's time; "
                f"{int(tokens)} tokens, {1 - tokens / positions:.0%} padding"
            )


if __name__ == "__main__":
    main()
