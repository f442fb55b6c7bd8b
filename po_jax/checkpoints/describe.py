"""The network that a checkpoint is of, told by its shapes, and the shapes that a network has."""

from collections.abc import Mapping
import dataclasses
import functools
import types

import flax
import jax

from po_jax.checkpoints import trees
from po_jax.checkpoints.hugging_face_config import Config
from po_jax.checkpoints.leaves import Leaves
from po_jax.checkpoints.load import Checkpoint
from po_jax.language_model import LanguageModel, SpecialIds
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.t5gemma.config import T5GemmaConfig
from po_jax.t5gemma.language_model import T5GemmaLM


@functools.cache  # Tracing a deep network takes seconds.
def parameter_shapes(config: Config) -> Mapping[str, tuple[int, ...]]:
    """Shapes of a network's parameters by path; nothing is allocated."""
    tree = jax.eval_shape(_model(config, SpecialIds()).init, jax.random.key(0))
    leaves = flax.traverse_util.flatten_dict(tree, sep="/")
    return types.MappingProxyType({name: leaf.shape for name, leaf in leaves.items()})


def language_model(checkpoint: Checkpoint, *, activation: str | None = None) -> LanguageModel:
    """The language model that a checkpoint is of, without dropout.

    Args:
      checkpoint: opened.
      activation: see `infer_config`; where the checkpoint does not describe its network.

    Raises:
      ValueError: if it is no T5, or a T5Gemma that does not say so.
    """
    config = checkpoint.config or infer_config(
        checkpoint.parameters, activation=activation, where=str(checkpoint.path)
    )
    ids = checkpoint.about.special_ids or SpecialIds()
    return _model(dataclasses.replace(config, dropout_rate=0.0), ids)


def _model(config: Config, special_ids: SpecialIds) -> LanguageModel:
    if isinstance(config, T5GemmaConfig):
        return T5GemmaLM(config, special_ids=special_ids)
    return T5LM(config, special_ids=special_ids)


def with_layers(config: Config, *, scanned: bool, family: str) -> Config:
    """The same network with its layers stacked or named, as checkpoints of its family have them."""
    if isinstance(config, T5GemmaConfig):
        return dataclasses.replace(config, scan_layers=scanned)
    shared = not scanned and family != "umt5"
    return dataclasses.replace(config, scan_layers=scanned, shared_relative_bias=shared)


def infer_config(leaves: Leaves, *, activation: str | None, where: str) -> T5Config:
    """The network of named layers and shared bias that these parameters are of.

    Shapes say everything but the activation and the dropout rate, which stays at its default.

    Args:
      leaves: by T5X's names, layers stacked or not.
      activation: of the feed-forward layer; None for gelu where it is gated, relu where not.
      where: the checkpoint, for messages.

    Raises:
      ValueError: if the leaves are not those of a T5.
    """
    shapes = {name: leaf.shape for name, leaf in trees.named_layers(leaves).items()}
    depths = {stack: trees.depth(shapes, stack) for stack in trees.STACKS}
    first = "encoder/layers_0"
    gated = f"{first}/mlp/wi_0/kernel" in shapes
    branch = f"{first}/mlp/{'wi_0' if gated else 'wi'}/kernel"
    bias = f"encoder/{trees.BIAS}"
    bias = bias if bias in shapes else f"{first}/{trees.BIAS}"
    query, embedding = f"{first}/attention/query/kernel", "token_embedder/embedding"
    absent = [name for name in (embedding, query, branch, bias) if name not in shapes]
    if absent or not all(depths.values()):
        raise ValueError(
            f"{where}: expected the parameters of a T5, got {len(shapes)} leaves without {absent} "
            f"and depths {depths}."
        )
    heads, buckets = shapes[bias]
    activation = activation or ("gelu" if gated else "relu")
    return T5Config(
        vocab_size=shapes[embedding][0],
        emb_dim=shapes[embedding][1],
        num_heads=heads,
        head_dim=shapes[query][1] // heads,
        mlp_dim=shapes[branch][1],
        num_encoder_layers=depths["encoder"],
        num_decoder_layers=depths["decoder"],
        mlp_activations=(activation, "linear") if gated else (activation,),
        logits_via_embedding="decoder/logits_dense/kernel" not in shapes,
        relative_buckets=buckets,
    )
