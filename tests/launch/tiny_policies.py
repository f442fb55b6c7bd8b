"""Tiny policies on disk, and the gin file of their network, for tests of launchers."""

import jax

from po_jax.checkpoints.manager import CheckpointManager
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM

GIN = """
from __gin__ import dynamic_registration
from po_jax.t5 import config
from po_jax.t5 import language_model

DROPOUT_RATE = %gin.REQUIRED
LANGUAGE_MODEL = @language_model.T5LM()
language_model.T5LM.config = @config.T5Config()
config.T5Config:
  vocab_size = 8192
  emb_dim = 8
  num_heads = 2
  head_dim = 3
  mlp_dim = 7
  num_encoder_layers = 1
  num_decoder_layers = 1
  dropout_rate = %DROPOUT_RATE
"""
MODEL = T5LM(
    T5Config(
        vocab_size=8192,
        emb_dim=8,
        num_heads=2,
        head_dim=3,
        mlp_dim=7,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
)


def write(folder, seeds):
    """Writes model.gin, and a policy of fresh parameters for each name and its seed."""
    (folder / "model.gin").write_text(GIN)
    init = jax.jit(MODEL.init)
    for name, seed in seeds.items():
        manager = CheckpointManager(folder / name)
        manager.save(3, {"params": init(jax.random.key(seed))})
        manager.close()
