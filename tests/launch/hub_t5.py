"""A Hugging Face T5 of the size of gin/models/t5_1_1/tiny.gin, for tests of launchers."""

from etils import epath
import jax
import numpy as np

from po_jax.checkpoints import hugging_face
from po_jax.checkpoints.leaves import from_array
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM, EncoderDecoder

CONFIG = T5Config(
    vocab_size=32128,
    emb_dim=8,
    num_heads=4,
    head_dim=3,
    mlp_dim=16,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_activations=("gelu", "linear"),
)


def write(directory: epath.Path) -> dict[str, np.ndarray]:
    """Writes fresh parameters and the configuration; returns the parameters by T5X's names."""
    return write_model(directory, T5LM(CONFIG), family="t5")


def write_model(directory: epath.Path, model: EncoderDecoder, **options) -> dict[str, np.ndarray]:
    """`write` of any model; the options are those of `hugging_face.write`."""
    directory.mkdir(parents=True)
    params = jax.jit(model.init)(jax.random.key(0))
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    named = {jax.tree_util.keystr(key, simple=True, separator="/"): x for key, x in leaves}
    arrays = {name: from_array(x, name) for name, x in named.items()}
    hugging_face.write(directory, arrays, model.config, **options)
    return {name: np.asarray(x) for name, x in named.items()}
