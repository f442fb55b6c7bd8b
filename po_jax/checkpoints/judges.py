"""Trained judges, ready to annotate: their parameters loaded to where they run."""

import jax
import jax.numpy as jnp

from po_jax.checkpoints.load import load
from po_jax.judges.learned import PreferenceAnnotator, RewardAnnotator
from po_jax.judges.models import PreferenceModel, RewardModel
from po_jax.models.base import Model
from po_jax.partitioning import Partitioner
from po_jax.types import Params


def load_parameters(
    model: Model, checkpoint: str, partitioner: Partitioner, dtype: str = "float32"
) -> Params:
    """A model's parameters from any known checkpoint, sharded as the mesh's rules say.

    Raises:
      ValueError: if the checkpoint is damaged, or of another model.
    """
    shapes = jax.eval_shape(
        lambda key: model.get_initial_variables(key)["params"], jax.random.key(0)
    )
    shardings = partitioner.shardings(shapes, model.parameter_axes())
    return load(
        checkpoint,
        jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, jnp.dtype(dtype), sharding=sharding
            ),
            shapes,
            shardings,
        ),
    )


def preference_annotator(
    model: PreferenceModel, checkpoint: str | None, partitioner: Partitioner
) -> PreferenceAnnotator:
    """The annotator of a trained preference model.

    Raises:
      ValueError: if there is no such checkpoint, or it is of another model.
    """
    params = load_parameters(model, _given(checkpoint, "preference"), partitioner)
    return PreferenceAnnotator(model.language_model, model.template, params)


def reward_annotator(
    model: RewardModel, checkpoint: str | None, partitioner: Partitioner
) -> RewardAnnotator:
    """The annotator of a trained reward model.

    Raises:
      ValueError: if there is no such checkpoint, or it is of another model.
    """
    params = load_parameters(model, _given(checkpoint, "reward"), partitioner)
    return RewardAnnotator(model.language_model, model.template, params)


def _given(checkpoint: str | None, kind: str) -> str:
    if checkpoint is None:
        raise ValueError(
            f"expected ANNOTATOR_CHECKPOINT_PATH to name the checkpoint of a {kind} model (train "
            f"one with gin/runs/{kind}_model.gin), got None"
        )
    return checkpoint
