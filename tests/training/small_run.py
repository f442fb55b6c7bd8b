"""Runs of training small enough for tests: a T5 of two layers on a made-up language.

    python -m tests.training.small_run DIRECTORY STEPS

trains offline IPO and then online IPO-MD in DIRECTORY, with a checkpoint every 3 steps.
"""

from functools import cache, partial
import sys

import jax
import numpy as np

from po_jax import files
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.data import json_lines, layouts
from po_jax.data.corpus import BatchStream, Corpus, Ragged
from po_jax.judges import LearnedJudge, PreferenceModel
from po_jax.judges.template import Template
from po_jax.losses import objectives, pairwise
from po_jax.models import PolicyModel
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Strategy
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training import loop, optimizers
from po_jax.training.offline_feed import OfflineFeed
from po_jax.training.online_feed import OnlineFeed

VOCABULARY = 24
MODEL = T5LM(
    T5Config(
        vocab_size=VOCABULARY,
        emb_dim=8,
        num_heads=2,
        head_dim=5,
        mlp_dim=7,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout_rate=0.1,
    )
)
LENGTHS = {"inputs": 6, "targets": 5}
STRATEGY = Strategy(max_length=LENGTHS["targets"])
TEMPLATE = Template(pieces=((20,), (21,), (22,)), verdicts=(18, 19))
IPO = partial(objectives.contrastive, loss=pairwise.ipo, tau=0.1)
OPTIMIZER = optimizers.Adafactor(0.05)


def sequences(rng, count, longest, words=(2, 18)):
    """Random sentences of up to `longest` tokens, EOS included, of the words of a range."""
    lengths = rng.integers(2, longest + 1, count)
    rows = [[*rng.integers(*words, length - 1), 1] for length in lengths]
    return Ragged(np.concatenate(rows), lengths)


def corpus(examples=21):
    """Prompts with two completions each; small words are preferred to large ones."""
    rng = np.random.default_rng(5)
    return Corpus(
        tokens={
            "inputs": sequences(rng, examples, LENGTHS["inputs"]),
            "completion_1": sequences(rng, examples, LENGTHS["targets"], (2, 10)),
            "completion_2": sequences(rng, examples, LENGTHS["targets"], (10, 18)),
        },
        texts={},
        sizes=[examples],
        rates=[1.0],
        preference=rng.uniform(0.6, 1.0, examples).astype(np.float32),
    )


def comparisons(batch_size=8):
    return BatchStream(corpus(), layouts.Comparisons(LENGTHS), batch_size)


def prompts(batch_size=8):
    return BatchStream(corpus(), layouts.Prompts(LENGTHS), batch_size)


@cache
def judge():
    """A preference model that nobody trained: its opinions are firm and arbitrary."""
    params = jax.jit(MODEL.init)(jax.random.key(11))
    return LearnedJudge(
        PreferenceModel(language_model=MODEL, template=TEMPLATE),
        jax.tree.map(lambda x: 4.0 * x, params),
        make_partitioner(devices=jax.devices()[:1]),
    )


def train(model_dir, feed, data, steps, **options):
    """`Trainer.train` with small defaults."""
    trainer = loop.Trainer(
        **{
            "model": PolicyModel(language_model=MODEL, objective=IPO),
            "optimizer": OPTIMIZER,
            "feed": feed,
            "data": data,
            "partitioner": make_partitioner(devices=jax.devices()[:1]),
            "model_dir": str(model_dir),
            "total_steps": steps,
            "checkpoints": partial(CheckpointManager, keep=2),
            "log_period": 1,
            **options,
        }
    )
    return trainer.train()


def records(folder, name="metrics.jsonl"):
    """A run's records without their times, which differ from run to run."""
    rows = [row for _, row in json_lines.read(files.absolute(folder) / name)]
    return [{k: v for k, v in row.items() if not k.startswith("seconds_")} for row in rows]


def offline_ipo(model_dir, steps, **options):
    return train(model_dir, OfflineFeed, comparisons(), steps, **options)


def ipo_md(model_dir, steps, annotator=None, **options):
    feed = partial(
        OnlineFeed, annotator=annotator or judge(), strategy=STRATEGY, betas=(0.25, 0.25)
    )
    return train(model_dir, feed, prompts(), steps, **options)


if __name__ == "__main__":
    directory, total = sys.argv[1], int(sys.argv[2])
    offline_ipo(f"{directory}/offline_ipo", total, save_period=3)
    ipo_md(f"{directory}/ipo_md", total, save_period=3)
