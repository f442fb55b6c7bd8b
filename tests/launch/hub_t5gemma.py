"""A Hugging Face T5Gemma for tests of launchers, and the gin file of its network."""

from etils import epath
import jax
import numpy as np

from po_jax.checkpoints import hugging_face, hugging_face_config
from po_jax.checkpoints.leaves import from_array
from po_jax.language_model import SpecialIds
from po_jax.t5gemma.config import StackConfig, T5GemmaConfig
from po_jax.t5gemma.language_model import T5GemmaLM

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
    directory.mkdir(parents=True)
    params = jax.jit(T5GemmaLM(CONFIG, special_ids=IDS).init)(jax.random.key(0))
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    named = {jax.tree_util.keystr(key, simple=True, separator="/"): x for key, x in leaves}
    arrays = {name: from_array(x, name) for name, x in named.items()}
    ids = hugging_face_config.special_ids_json(IDS)
    hugging_face.write(directory, arrays, CONFIG, family="t5gemma", kept=ids)
    return {name: np.asarray(x) for name, x in named.items()}
