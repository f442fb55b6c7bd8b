"""What all models share: variables, their axis names, evaluation, and what only T5X asks for."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from po_jax.checkpoints.about import About
from po_jax.language_model import LanguageModel
from po_jax.metrics import Metric
from po_jax.partitioning import axis_metadata
from po_jax.sampling import Strategy, sample
from po_jax.types import Params, PreferenceBatch

LossAndMetrics = tuple[Float[Array, ""], dict[str, Metric]]


@dataclasses.dataclass(kw_only=True, eq=False)
class Model:
    """A network with a loss.

    Attributes:
      language_model: the network.
      strategy: how `predict_batch` draws completions, where it does; greedy by default.
      optimizer_def: T5X's optimiser. Our own loop takes an optax one instead.
      feature_converter_cls: for T5X, a `seqio.FeatureConverter` whose features `loss_fn` reads.
      input_vocabulary, output_vocabulary: for T5X's infer script.
    """

    language_model: LanguageModel
    strategy: Strategy = Strategy(max_length=64, temperature=0.0)
    optimizer_def: Any = None
    feature_converter_cls: Callable[..., Any] | None = None
    input_vocabulary: Any = None
    output_vocabulary: Any = None

    @property
    def kind(self) -> str | None:
        """What it is, in words, as its checkpoints record it; None if it does not matter."""
        return None

    @property
    def counts_padding(self) -> bool:
        """Whether the loss depends on how many positions rows are filled up to."""
        return False

    @property
    def FEATURE_CONVERTER_CLS(self) -> Callable[..., Any] | None:  # noqa: N802
        """`feature_converter_cls`, by T5X's name."""
        return self.feature_converter_cls

    @property
    def module(self):
        """The Flax module, which T5X asks whether its layers are scanned."""
        return self.language_model.module

    def get_initial_variables(
        self,
        rng: PRNGKeyArray,
        input_shapes: Mapping[str, Any] | None = None,
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Fresh `params`, and `params_axes`, their logical axis names.

        No parameter's shape depends on the inputs': these are T5X's to give and not used.
        """
        del input_shapes, input_types
        return {"params": self.language_model.init(rng), "params_axes": self.params_axes()}

    def params_axes(self) -> dict[str, Any]:
        """The collection in which T5X looks for the parameters' logical axis names."""
        return axis_metadata(self.language_model.parameter_axes())

    def about(self) -> About:
        """What a checkpoint says of it beside the parameters."""
        return About.of(self.language_model, self.kind)

    @property
    def has_dropout(self) -> bool:
        """Whether a loss with a key depends on it."""
        return self.language_model.has_dropout

    def parameter_axes(self) -> Any:
        """The tree of the parameters' logical axis names."""
        return self.language_model.parameter_axes()

    def loss_fn(
        self, params: Params, batch: Any, dropout_rng: PRNGKeyArray | None
    ) -> LossAndMetrics:
        """The loss of a batch, and metrics; without a key, no dropout."""
        raise NotImplementedError

    def weight(self, batch: Any) -> Float[Array, ""]:
        """What the mean loss of a batch counts beside those of others: the number of its rows."""
        return jnp.float32(jax.tree.leaves(batch)[0].shape[0])

    def eval_fn(self, params: Params, batch: Any) -> LossAndMetrics:
        """`loss_fn` without dropout."""
        return self.loss_fn(params, batch, None)

    def predict_batch_with_aux(
        self, params: Params, batch: Any, rng: PRNGKeyArray | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Predictions, and by name what else there is to know of them; all `[batch, ...]`."""
        raise NotImplementedError

    def predict_batch(self, params: Params, batch: Any, rng: PRNGKeyArray | None = None) -> Array:
        """The predictions alone."""
        return self.predict_batch_with_aux(params, batch, rng)[0]

    def _sample(
        self, params, prompt: Int[Array, "batch prompt"], max_length: int, rng
    ) -> tuple[Int[Array, "batch length"], dict[str, Float[Array, " batch"]]]:
        """One completion of each prompt, and its log-probability under the model."""
        rollout = sample(
            self.language_model,
            dataclasses.replace(self.strategy, max_length=max_length),
            params,
            None,
            prompt,
            jnp.zeros((prompt.shape[0], 1)),
            jax.random.key(0) if rng is None else rng,
        )
        return rollout.completion[:, 0], {"scores": jnp.sum(rollout.policy_logprob[:, 0], axis=-1)}


def preference_batch(batch: PreferenceBatch | Mapping[str, Any]) -> PreferenceBatch:
    """The batch itself, or one made of a mapping, as T5X hands over; absent features are None."""
    if isinstance(batch, PreferenceBatch):
        return batch
    names = [field.name for field in dataclasses.fields(PreferenceBatch)]
    return PreferenceBatch(**{name: batch.get(name) for name in names})
