"""Supervised fine-tuning on T5X's features: token cross-entropy."""

from collections.abc import Mapping
import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from po_jax.logprobs import sequence_logprob, token_logprobs
from po_jax.losses.supervised import cross_entropy
from po_jax.metrics import Mean, Sum
from po_jax.models.base import LossAndMetrics, Model
from po_jax.types import Params

Features = Mapping[str, Array]
Normalizer = Literal["NUM_REAL_TARGET_TOKENS", "NUM_TOTAL_TARGET_TOKENS", "AVERAGE_PER_SEQUENCE"]


@dataclasses.dataclass(kw_only=True, eq=False)
class SupervisedModel(Model):
    """A language model trained on T5X's features, padded or packed.

    `encoder_input_tokens`, `decoder_input_tokens`, `decoder_target_tokens`, all [batch, length]
    with the model's padding; `decoder_loss_weights`, of the target's tokens by default; and, of
    packed examples, `encoder_segment_ids` and `decoder_segment_ids`. Whatever begins a decoder's
    input (T5X's 0), the model reads its own start there.

    Attributes:
      label_smoothing: in [0, 1).
      z_loss: coefficient of the squared log-normaliser.
      loss_normalizing_factor: what the summed loss is divided by: the batch's target tokens
        ("NUM_REAL_TARGET_TOKENS"); those and padding ("NUM_TOTAL_TARGET_TOKENS", for which rows
        must not be cut); the tokens of each example, then the examples ("AVERAGE_PER_SEQUENCE"); a
        number; or None for 1.

    Raises:
      ValueError: at the first batch, if the loss weights are not of the targets' shape.
    """

    kind = "an SFT model"
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    loss_normalizing_factor: Normalizer | float | int | None = "NUM_REAL_TARGET_TOKENS"

    @property
    def counts_padding(self) -> bool:
        return self.loss_normalizing_factor == "NUM_TOTAL_TARGET_TOKENS"

    def loss_fn(
        self, params: Params, batch: Features, dropout_rng: PRNGKeyArray | None
    ) -> LossAndMetrics:
        """The normalised loss; metrics with T5X's names."""
        return self.loss_of_logits(self.logits(params, batch, dropout_rng), batch)

    def loss_of_logits(
        self, logits: Float[Array, "batch length vocab"], batch: Features
    ) -> LossAndMetrics:
        """`loss_fn` after the network."""
        targets = batch["decoder_target_tokens"]
        loss, z_term = cross_entropy(
            logits, targets, label_smoothing=self.label_smoothing, z_loss=self.z_loss
        )
        weights = self._loss_weights(batch)
        correct = jnp.argmax(logits, axis=-1) == targets
        metrics = {
            "accuracy": Mean.of(correct, weights),
            "loss_per_nonpadding_target_token": Mean.of(loss, weights),
        }
        weights = self._shares(batch)
        for name, term in (
            ("loss", loss),
            ("z_loss", z_term),
            ("cross_ent_loss", loss - z_term),
        ):
            total = jnp.sum(term * weights)
            match self.loss_normalizing_factor:
                case None:
                    metrics[name] = Sum(total)
                case float() | int() as factor:
                    metrics[name] = Sum(total / factor)
                case _:
                    metrics[name] = Mean(total, self.weight(batch))
        return metrics["loss"].compute(), metrics

    def weight(self, batch: Features) -> Float[Array, ""]:
        """What a batch's mean loss is a mean over; `loss_normalizing_factor` says what."""
        weights = self._shares(batch)
        if not self.counts_padding:
            return jnp.sum(weights)
        # Rows without a token only fill up the last batch of an evaluation.
        rows = jnp.sum(jnp.any(weights > 0, axis=-1), dtype=jnp.float32)
        return rows * weights.shape[-1]

    def _shares(self, batch: Features) -> Float[Array, "batch length"]:
        """The weight of each target token in the loss."""
        weights = self._loss_weights(batch)
        if self.loss_normalizing_factor == "AVERAGE_PER_SEQUENCE":
            return _share_in_sequence(weights, batch.get("decoder_segment_ids"))
        return weights

    def score_batch(self, params: Params, batch: Features) -> Float[Array, " batch"]:
        """log P(target | input), weighted by the loss weights."""
        logprobs = token_logprobs(self.logits(params, batch), batch["decoder_target_tokens"])
        weights = self._loss_weights(batch)
        return sequence_logprob(logprobs * weights, weights > 0)

    def predict_batch_with_aux(
        self, params: Params, batch: Features, rng: PRNGKeyArray | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """Completions as long as the batch's targets may be, and their log-probabilities."""
        length = batch["decoder_input_tokens"].shape[-1]
        return self._sample(params, batch["encoder_input_tokens"], length, rng)

    def logits(
        self, params: Params, batch: Features, dropout_rng: PRNGKeyArray | None = None
    ) -> Float[Array, "batch length vocab"]:
        """The network's output, with dropout if there is a key."""
        return self.language_model.logits(
            params,
            batch["encoder_input_tokens"],
            self._decoder_inputs(batch),
            input_segments=batch.get("encoder_segment_ids"),
            decoder_segments=batch.get("decoder_segment_ids"),
            dropout_key=dropout_rng,
        )

    def _decoder_inputs(self, batch: Features) -> Int[Array, "batch length"]:
        inputs, segments = batch["decoder_input_tokens"], batch.get("decoder_segment_ids")
        if segments is None:
            first = jnp.arange(inputs.shape[-1])[None] == 0
        else:
            first = jnp.diff(segments, prepend=0) != 0
        return jnp.where(first, self.language_model.special_ids.start, inputs)

    def _loss_weights(self, batch: Features) -> Float[Array, "batch length"]:
        weights, targets = batch.get("decoder_loss_weights"), batch["decoder_target_tokens"]
        if weights is None:
            weights = targets != self.language_model.special_ids.pad
        if weights.shape != targets.shape:
            raise ValueError(
                f"decoder_loss_weights: expected the targets' shape {targets.shape}, got "
                f"{weights.shape} of {weights.dtype}; where rows are cut, weights are integers"
            )
        return weights.astype(jnp.float32)


def _share_in_sequence(
    weights: Float[Array, "batch length"], segment_ids: Array | None
) -> Float[Array, "batch length"]:
    """Each token's share of its example's weight; a row holds several examples if packed."""
    if segment_ids is None:
        total = jnp.sum(weights, axis=-1, keepdims=True)
    else:
        same = segment_ids[:, :, None] == segment_ids[:, None, :]
        total = jnp.sum(weights[:, None, :], axis=-1, where=same)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 0.0)
