"""The gin files of the published T5s and T5Gemmas: their sizes, and that they build."""

import math

import gin
import pytest

from launch import GIN_FOLDER, gin_support
from po_jax.checkpoints import describe

# Millions of parameters, as published: T5 arXiv 1910.10683 (and the model cards of 1.1), mT5 arXiv
# 2010.11934, ByT5 arXiv 2105.13626, UL2 arXiv 2205.05131. Of umT5 no counts were published: mT5's
# networks with 6,272 more embeddings, input and output. T5Gemma: of its files on the hub.
PUBLISHED = {
    "t5_1_0/small": 60.5,
    "t5_1_0/base": 222.9,
    "t5_1_0/large": 737.7,
    "t5_1_0/xl": 2852,
    "t5_1_0/xxl": 11307,
    "t5_1_1/small": 77,
    "t5_1_1/base": 247.6,
    "t5_1_1/large": 783.2,
    "t5_1_1/xl": 2850,
    "t5_1_1/xxl": 11135,
    "mt5/small": 300,
    "mt5/base": 582,
    "mt5/large": 1230,
    "mt5/xl": 3740,
    "mt5/xxl": 12900,
    "byt5/small": 300,
    "byt5/base": 582,
    "byt5/large": 1230,
    "byt5/xl": 3740,
    "byt5/xxl": 12900,
    "umt5/small": 300 + 6272 * 2 * 512 / 1e6,
    "umt5/base": 582 + 6272 * 2 * 768 / 1e6,
    "umt5/xl": 3740 + 6272 * 2 * 2048 / 1e6,
    "umt5/xxl": 12900 + 6272 * 2 * 4096 / 1e6,
    "ul2/20B": 19500,
    "t5gemma/small": 312.517632,
    "t5gemma/base": 591.490560,
    "t5gemma/large": 1241.761792,
    "t5gemma/ml": 2200.345344,
    "t5gemma/xl": 3766.980608,
    "t5gemma/2b_2b": 5596.853760,
    "t5gemma/9b_2b": 12292.375296,
    "t5gemma/9b_9b": 20333.401088,
}
ROUNDED = {  # Without the vision tower, as its announcement has them: so many of such a unit.
    "t5gemma2/270m_270m": (37, 10**7),
    "t5gemma2/1b_1b": (17, 10**8),
    "t5gemma2/4b_4b": (7, 10**9),
}
UNPUBLISHED = {"t5_1_0/tiny", "t5_1_0/mini", "t5_1_1/tiny", "t5_1_1/mini"}


def network(*files, language_model="language_model.T5LM"):
    gin_support.configure(files, ["DROPOUT_RATE = 0.1"])
    config = gin.get_configurable(language_model)().config
    gin.clear_config()
    return config


def test_every_file_is_tested():
    files = {f"{p.parent.name}/{p.stem}" for p in (GIN_FOLDER / "models").glob("*/*.gin")}
    assert files == PUBLISHED.keys() | ROUNDED.keys() | UNPUBLISHED


def number_of_parameters(name):
    # Stacked layers trace once whatever the depth; a bias a layer adds a few thousand parameters.
    known = {"language_model": "language_model.T5GemmaLM"} if "t5gemma" in name else {}
    config = network(f"gin/models/{name}.gin", "gin/models/scan.gin", **known)
    assert config.dropout_rate == 0.1 and config.dtype.name == "bfloat16"
    return sum(math.prod(shape) for shape in describe.parameter_shapes(config).values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_number_of_parameters(name):
    # Of a T5Gemma the published count is exact.
    tolerance = 1e-12 if "t5gemma" in name else 0.01
    assert abs(number_of_parameters(name) / 1e6 / PUBLISHED[name] - 1) < tolerance


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_number_of_parameters(name):
    published, unit = ROUNDED[name]
    assert round(number_of_parameters(name) / unit) == published


@pytest.mark.parametrize("name", sorted(UNPUBLISHED))
def test_small_networks_build(name):
    config = network(f"gin/models/{name}.gin")
    assert config.shared_relative_bias and not config.scan_layers
    assert describe.parameter_shapes(config)["token_embedder/embedding"] == (32128, config.emb_dim)


def test_umt5_has_a_bias_in_every_layer():
    assert not network("gin/models/umt5/small.gin").shared_relative_bias
