"""A tiny T5 on two fake devices, policies of it on disk, and prompts for them."""

import jax
import numpy as np

from po_jax.checkpoints.about import About
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.data import layouts
from po_jax.data.corpus import BatchStream, Corpus, Ragged
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Sampler, Strategy
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM

MODEL = T5LM(
    T5Config(
        vocab_size=12,
        emb_dim=8,
        num_heads=2,
        head_dim=3,
        mlp_dim=7,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
)
PROMPTS = 5


def sampler(**options) -> Sampler:
    """Draws completions of five tokens, four prompts at a time."""
    strategy = Strategy(max_length=5, **options)
    return Sampler(MODEL, strategy, make_partitioner(devices=jax.devices()[:2]), batch_size=4)


def write(folder, about: About | None = None, **seeds: int) -> dict[str, str]:
    """A policy of fresh parameters for each name and its seed; name -> path."""
    init = jax.jit(MODEL.init)
    for name, seed in seeds.items():
        manager = CheckpointManager(folder / name)
        manager.save(3, {"params": init(jax.random.key(seed))}, about=about)
        manager.close()
    return {name: str(folder / name) for name in seeds}


def prompts(**texts) -> BatchStream:
    """Five prompts, whose text says more than their tokens do."""
    tokens = np.array([[5, 6, 1], [7, 8, 1], [9, 10, 1], [2, 3, 1], [4, 5, 1]])
    corpus = Corpus(
        tokens={"inputs": Ragged(tokens.reshape(-1), np.full(PROMPTS, 3))},
        texts={"inputs": [f"whole prompt {i}" for i in range(PROMPTS)], **texts},
        sizes=[PROMPTS],
        rates=[1.0],
    )
    return BatchStream(corpus, layouts.Prompts({"inputs": 3}), batch_size=4)
