"""A Hugging Face T5Gemma for tests of launchers, and the gin file of its network."""

from etils import epath
import numpy as np

from po_jax.checkpoints import hugging_face_config
from po_jax.language_model import SpecialIds
from po_jax.t5gemma.config import StackConfig, T5GemmaConfig
from po_jax.t5gemma.language_model import T5GemmaLM
from tests.launch import hub_t5

# Enough for the vocabulary of any task: those of a process are registered once, with the first.
VOCABULARY = 8320
GIN = f"""
include "gin/models/t5gemma/base.gin"

config.T5GemmaConfig.vocab_size = {VOCABULARY}
config.StackConfig:
  emb_dim = 8
  num_heads = 4
  num_kv_heads = 2
  head_dim = 6
  mlp_dim = 16
  num_layers = 2
  query_scalar = 6
encoder/config.StackConfig.emb_dim = 12
"""
SHAPE = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "mlp_dim": 16, "num_layers": 2}
CONFIG = T5GemmaConfig(
    vocab_size=VOCABULARY,
    encoder=StackConfig(emb_dim=12, query_scalar=6, **SHAPE),
    decoder=StackConfig(emb_dim=8, query_scalar=6, **SHAPE),
)
IDS = SpecialIds(pad=0, eos=1, start=2)


def write(directory: epath.Path) -> dict[str, np.ndarray]:
    """Writes fresh parameters and the configuration; returns the parameters by their names."""
    ids = hugging_face_config.special_ids_json(IDS)
    model = T5GemmaLM(CONFIG, special_ids=IDS)
    return hub_t5.write_model(directory, model, family="t5gemma", kept=ids)
