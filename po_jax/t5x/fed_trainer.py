"""T5X's trainer with a feed of ours between its data and its step.

The feed is the very object of our own loop. An `OfflineFeed` adds log mu to T5X's batches of
comparisons; an `OnlineFeed` draws completions of T5X's batches of prompts and has them judged.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import logging
from typing import Any

from etils import epath
import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
import optax
from t5x import metrics as t5x_metrics
from t5x import train_state as t5x_train_state
from t5x import trainer as t5x_trainer

from po_jax.checkpoints.load import load_parameters
from po_jax.data.corpus import Batch, Batches
from po_jax.metrics import Mean, Metric, Metrics
from po_jax.models.base import Model
from po_jax.partitioning import collect
from po_jax.reporting.clock import StageClock
from po_jax.t5x.converters import texts_of
from po_jax.t5x.start import AVERAGE, partitioner_of
from po_jax.training.loop import Updates
from po_jax.training.made_from import FILE, Origin, describe
from po_jax.training.randomness import root_key
from po_jax.training.run import Feed, Run
from po_jax.training.state import TrainState
from po_jax.types import Params

logger = logging.getLogger(__name__)

Arrays = Mapping[str, Any]
_FAR = 0.05  # of |log pi - log mu| beside -log pi, on the first batch: what dropout does to it


class FedTrainer(t5x_trainer.Trainer):
    """A `trainer_cls` of `t5x.train.train`; everything but the batches and the step is T5X's.

    It overrides `_partitioned_train_step` and `_partitioned_eval_step`, which T5X leaves to
    custom trainers; `train`, to know the step without asking the device; and `compile_train` and
    `compile_eval`, which do nothing: what comes before the step is compiled when it first runs.

    Args:
      feed: makes the feed, as that of our own loop; None where T5X's batches are complete.
      initial_checkpoint_path: of the reference, from which the policy starts; needed by a feed.
      random_seed: of the feed's randomness, as of our own loop.
      reference_dtype: to keep the reference in; None for float32.
      updates: micro-batches, clipping and the moving average, as of our own loop.
      learning_rate_fn, weight_metrics_computer: of T5X's trainer.
      **given: what T5X gives to its trainers.

    Raises:
      ValueError: if a feed lacks a checkpoint, or, from `train`, if the run was made from another
        one or starts with a policy that is far from its reference.
    """

    def __init__(
        self,
        *,
        feed: Callable[[Run, Batches], Feed] | None = None,
        initial_checkpoint_path: str | None = None,
        random_seed: int = 0,
        reference_dtype: str | None = None,
        updates: Updates,
        learning_rate_fn: Callable[[Any], Any],
        weight_metrics_computer: t5x_trainer.WeightMetricsComputer | None = None,
        **given: Any,
    ):
        super().__init__(
            learning_rate_fn=learning_rate_fn,
            num_microbatches=updates.micro_batches,
            weight_metrics_computer=weight_metrics_computer,
            **given,
        )
        if feed is not None and initial_checkpoint_path is None:
            raise ValueError("expected INITIAL_CHECKPOINT_PATH to name the reference, got None")
        self._updates = updates
        self._make_feed = feed
        self._incoming = _Incoming()
        self._clock = StageClock()
        self._step = 0
        if feed is not None:
            facts = {"seed": random_seed, "updates": updates, "reference_dtype": reference_dtype}
            self._run = _run(
                given, initial_checkpoint_path, root_key(random_seed), reference_dtype, facts
            )

    def train(self, batch_iter: Any, num_steps: int, start_step: int | None = None) -> Any:
        """T5X's, then keeps what the feed needs beside a checkpoint."""
        self._step = int(self.train_state.step if start_step is None else start_step)
        metrics = super().train(batch_iter, num_steps, start_step)
        if self._make_feed is not None:
            self._feed.save()
        return metrics

    def compile_train(self, batch: Arrays) -> None:
        """Left to the first step."""

    def compile_eval(self, batches: Mapping[str, Arrays]) -> None:
        """Left to the first evaluation."""

    @functools.cached_property
    def _feed(self) -> Feed:
        """Made when the first batch is there."""
        assert self._make_feed is not None
        return self._make_feed(self._run, self._incoming)

    @functools.cached_property
    def _partitioned_train_step(self) -> Callable[[Any, Arrays], tuple[Any, dict[str, Metric]]]:
        update = self._partitioned(
            self._update, donate_argnums=(0,), out_axis_resources=(self._train_state_axes, None)
        )

        def train_step(state, batch):
            if self._make_feed is None:
                return update(state, batch)
            starts = "_feed" not in self.__dict__
            batch, facts = self._fed(state, batch)
            at_reference = starts and bool(_same(_thawed(state.params), self._run.reference))
            state, metrics = update(state, batch)
            if starts:
                _check_start(at_reference, metrics)
            self._step += 1
            return state, {**metrics, **facts}

        return train_step

    @functools.cached_property
    def _partitioned_eval_step(self) -> Callable[[Any, Arrays], dict[str, Metric]]:
        def evaluate(state, batch):
            return t5x_trainer.eval_step(_Shares(self._model, None), state, batch)

        evaluate = self._partitioned(evaluate, out_axis_resources=None)
        if self._make_feed is None:
            return evaluate
        return lambda state, batch: evaluate(state, self._fed(state, batch)[0])

    def _partitioned(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        rows = self._partitioner.data_partition_spec
        return self._partitioner.partition(
            function, in_axis_resources=(self._train_state_axes, rows), **options
        )

    def _fed(self, state: t5x_train_state.TrainState, batch: Arrays) -> tuple[Arrays, Metrics]:
        """What the feed makes of T5X's batch, and its facts."""
        self._incoming.hand(collect(dict(batch)))
        average = _thawed(state.flax_mutables.get(AVERAGE))
        seen = TrainState(state.step, _thawed(state.params), None, average)
        fed, facts = self._feed.batch(self._step, seen, self._clock)
        fields = {field.name: getattr(fed, field.name) for field in dataclasses.fields(fed)}
        return {name: x for name, x in fields.items() if x is not None}, _as_t5x(facts)

    def _update(
        self, state: t5x_train_state.TrainState, batch: Arrays
    ) -> tuple[t5x_train_state.TrainState, dict[str, Metric]]:
        """T5X's `train_with_lr`, with our mean over micro-batches, clipping and moving average."""
        grads, metrics, _ = t5x_trainer.accumulate_grads_microbatched(
            _Shares(self._model, self._model.weight(batch)),
            state,
            batch,
            self._get_step_rng(state.step),
            self._num_microbatches,
            self._partitioner.data_partition_spec,
        )
        norm = optax.tree.norm(grads)
        if (limit := self._updates.max_gradient_norm) is not None:
            scale = jnp.minimum(1.0, limit / norm)
            grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        mutables = state.flax_mutables
        state, metrics = t5x_trainer.apply_grads(
            state,
            grads,
            metrics,
            self._learning_rate_fn(state.step),
            self._weight_metrics_computer,
            {"flax_mutables": mutables},
        )
        if (decay := self._updates.average_decay) is not None:
            average = optax.incremental_update(state.params, mutables[AVERAGE], 1.0 - decay)
            state = state.replace_flax_mutables(mutables.copy({AVERAGE: average}))
        metrics["gradient_norm"] = Mean(total=norm, count=jnp.float32(1.0))
        metrics["timing/steps_per_second"] = t5x_metrics.StepsPerTime.from_model_output()
        return state, metrics


class _Incoming:
    """The batches of a feed: whichever one T5X handed over last."""

    batch_size = 1  # of no consequence: the feeds draw what they are handed

    def hand(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes this process's rows of a batch."""
        texts = texts_of(arrays)
        tokens = {name: x for name, x in arrays.items() if not name.startswith("text/")}
        self._batch = Batch(tokens, texts, np.ones(len(tokens["prompt"]), bool))

    def batch(self, step: int) -> Batch:
        """The batch that was handed over."""
        return self._batch


class _Shares:
    """A model whose loss of a micro-batch is its share of the loss of the whole batch.

    T5X adds up the gradients of micro-batches, so that mean losses would grow with their number.

    Args:
      model: whose loss it is.
      total: `model.weight` of the whole batch; None leaves losses as they are.
    """

    def __init__(self, model: Model, total: Float[Array, ""] | None):
        self._model = model
        self._total = total

    def loss_fn(self, params: Params, batch: Arrays, dropout_rng: Any, *mutables: Any) -> Any:
        """As T5X calls it, with or without `flax_mutables`."""
        loss, metrics = self._model.loss_fn(params, batch, dropout_rng)
        if self._total is not None and isinstance(metrics["loss"], Mean):
            loss = loss * (metrics["loss"].count / self._total)
        metrics = _as_t5x(metrics)
        return (loss, (metrics, *mutables)) if mutables else (loss, metrics)

    def eval_fn(self, params: Params, batch: Arrays, *mutables: Any) -> Any:
        """The loss without dropout, and the metrics."""
        loss, metrics = self._model.eval_fn(params, batch)
        return loss, _as_t5x(metrics)


def _as_t5x(metrics: Metrics) -> dict[str, Metric]:
    """Means know what they were counted over; T5X divides a sum by the steps if it is told to."""
    return {
        name: metric if isinstance(metric, Mean) else t5x_metrics.AveragePerStep(total=metric.total)
        for name, metric in metrics.items()
    }


def _run(
    given: Mapping[str, Any], path: str, key: Any, dtype: str | None, facts: Mapping[str, Any]
) -> Run:
    """What the feed is told; MODEL_DIR records what the run is made from, as in our own loop."""
    model, partitioner = given["model"], partitioner_of(given["partitioner"])
    directory = epath.Path(given["summary_dir"])
    origin = Origin(directory, path, begun=(directory / FILE).exists())

    def reference() -> Params:
        return load_parameters(
            model.language_model, origin.checkpoint_path, partitioner, dtype or "float32"
        )

    origin.hold(describe({**facts, "model": model}), reference)
    return Run(
        language_model=model.language_model,
        load_reference=lambda: origin.known(reference()),
        partitioner=partitioner,
        key=key,
        directory=directory,
    )


@jax.jit
def _same(params: Params, others: Params) -> Array:
    """Whether two trees hold the same numbers, in the dtypes of the second."""
    same = jax.tree.map(lambda x, other: jnp.all(x.astype(other.dtype) == other), params, others)
    return jnp.all(jnp.stack(jax.tree.leaves(same)))


def _thawed(tree: Any) -> Any:
    """T5X's trees are frozen, and of another type to JAX."""
    return flax.core.unfreeze(tree) if isinstance(tree, flax.core.FrozenDict) else tree


def _check_start(at_reference: bool, metrics: Mapping[str, Any]) -> None:
    """Refuses a policy that starts at its reference and yet does not agree with it.

    Raises:
      ValueError: saying by how much.
    """
    if not at_reference:
        logger.warning(
            "the policy is not at its reference: expected of a run that was resumed, or starts "
            "from another checkpoint than INITIAL_CHECKPOINT_PATH"
        )
        return
    ratio, nll = (float(collect(metrics[name].compute())) for name in ("log_ratio", "nll"))
    if abs(ratio) > _FAR * abs(nll):
        raise ValueError(
            "expected a policy that starts as its reference to agree with it, got log pi - log mu "
            f"of {ratio:.3g} a completion where log pi is {-nll:.3g}: DROPOUT_RATE must be 0 "
            "(T5X's finetune.gin sets 0.1; gin/t5x/offline.gin and online.gin set 0)"
        )
