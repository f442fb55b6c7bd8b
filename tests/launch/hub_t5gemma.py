"""A Hugging Face T5Gemma, and a T5Gemma 2, for tests of launchers, and the gin files of both."""

import dataclasses

from etils import epath
import numpy as np

from po_jax.checkpoints import hugging_face_config
from po_jax.language_model import SpecialIds
from po_jax.t5gemma.config import StackConfig, T5Gemma2Config, T5GemmaConfig
from po_jax.t5gemma.language_model import T5GemmaLM
from tests.launch import hub_t5

# Enough for the vocabulary of any task: those of a process are registered once, with the first.
VOCABULARY = 8320
STACK_GIN = """\
config.StackConfig:
  emb_dim = 8
  num_heads = 4
  num_kv_heads = 2
  head_dim = 6
  mlp_dim = 16
  num_layers = 2
  query_scalar = 6
"""
GIN = f"""
include "gin/models/t5gemma/base.gin"

config.T5GemmaConfig.vocab_size = {VOCABULARY}
{STACK_GIN}encoder/config.StackConfig.emb_dim = 12
"""
SECOND_GIN = f"""
include "gin/models/t5gemma2/270m_270m.gin"

config.T5Gemma2Config.vocab_size = {VOCABULARY}
{STACK_GIN}  sliding_layers = [True, False]
"""
SHAPE = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "mlp_dim": 16, "num_layers": 2}
CONFIG = T5GemmaConfig(
    vocab_size=VOCABULARY,
    encoder=StackConfig(emb_dim=12, query_scalar=6, **SHAPE),
    decoder=StackConfig(emb_dim=8, query_scalar=6, **SHAPE),
)
SECOND_SHAPE = dataclasses.replace(
    CONFIG.decoder,
    sliding_window=512,
    attention_softcap=None,
    full_rope_theta=1e6,
    full_rope_factor=8.0,
)
SECOND = T5Gemma2Config(vocab_size=VOCABULARY, encoder=SECOND_SHAPE, decoder=SECOND_SHAPE)
IDS = SpecialIds(pad=0, eos=1, start=2)
VISION = {  # Of T5Gemma 2, the least: what `transformers` makes of the tower that is not there.
    "hidden_size": 4,
    "intermediate_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 2,
    "patch_size": 1,
}


def write(
    directory: epath.Path, config: T5GemmaConfig = CONFIG, family: str = "t5gemma"
) -> dict[str, np.ndarray]:
    """Writes fresh parameters and the configuration; returns the parameters by their names."""
    kept = {"encoder": {"vision_config": VISION, "mm_tokens_per_image": 1}}
    kept = (kept if family == "t5gemma2" else {}) | hugging_face_config.special_ids_json(IDS)
    model = T5GemmaLM(config, special_ids=IDS)
    return hub_t5.write_model(directory, model, family=family, kept=kept)
