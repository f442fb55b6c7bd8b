"""A small T5 as a Hugging Face directory, for tests that need no other library."""

import types

from etils import epath
import jax
import numpy as np
import pytest

from po_jax.checkpoints import describe, hugging_face
from po_jax.checkpoints.leaves import from_array
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM

CONFIG = T5Config(
    vocab_size=48,
    emb_dim=14,
    num_heads=2,
    head_dim=5,
    mlp_dim=22,
    num_encoder_layers=2,
    num_decoder_layers=1,
    mlp_activations=("gelu", "linear"),
)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The network's `config`, its `params` by path as NumPy arrays, and their `directory`."""
    rng = np.random.default_rng(3)
    shapes = describe.parameter_shapes(CONFIG)
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    directory = epath.Path(tmp_path_factory.mktemp("small")) / "hugging_face"
    directory.mkdir()
    leaves = {name: from_array(value, name) for name, value in params.items()}
    hugging_face.write(directory, leaves, CONFIG, family="t5")
    return types.SimpleNamespace(config=CONFIG, params=params, directory=directory)


@pytest.fixture
def like():
    """Makes the shapes of a network's parameters."""
    return lambda config: jax.eval_shape(T5LM(config).init, jax.random.key(0))
