"""What is trained, as T5X wants its models: plain objects that own a network.

Each has `loss_fn`, `eval_fn`, `predict_batch`, `predict_batch_with_aux`, `score_batch` and
`get_initial_variables`, and trains both under our own loop and, by `po_jax.t5x`, under T5X's.
"""

from po_jax.models.policy import PolicyModel
from po_jax.models.supervised import SupervisedModel

__all__ = ["PolicyModel", "SupervisedModel"]
