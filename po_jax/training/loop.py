"""The training loop: restore, then feed, step, report, evaluate and save until the end.

Every algorithm runs through here. What differs between them is bound from outside: the model with
its loss, and the feed that says where batches come from.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import functools
from pathlib import Path
import time

import jax
import optax

from po_jax.checkpoints.manager import CheckpointManager
from po_jax.data.corpus import BatchStream
from po_jax.models.base import Model
from po_jax.partitioning import Partitioner
from po_jax.reporting.clock import StageClock
from po_jax.reporting.progress import Progress
from po_jax.reporting.reporter import Reporter
from po_jax.reporting.writers import JsonLines, Maker, writers_of
from po_jax.training.held_out import Evaluation
from po_jax.training.interruption import Interruption
from po_jax.training.run import Feed, Run
from po_jax.training.start import Start
from po_jax.training.state import TrainState
from po_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Updates:
    """How a batch becomes an update.

    Attributes:
      micro_batches: pieces a batch is processed in, to save memory.
      max_gradient_norm: a gradient of a larger global norm is scaled down to it; None for no limit.
      average_decay: share of the parameters' moving average that stays at each step; None keeps
        no average.
    """

    micro_batches: int = 1
    max_gradient_norm: float | None = None
    average_decay: float | None = None


def train(
    *,
    model: Model,
    optimizer: Callable[..., optax.GradientTransformation],
    feed: Callable[[Run, BatchStream], Feed],
    data: BatchStream,
    partitioner: Partitioner,
    model_dir: str,
    total_steps: int,
    initial_checkpoint_path: str | None = None,
    reference_dtype: str | None = None,
    random_seed: int = 0,
    updates: Updates = Updates(),
    checkpoints: Callable[[str], CheckpointManager] = CheckpointManager,
    evaluations: Mapping[str, Callable[[Run], Evaluation]] | None = None,
    writers: Sequence[Maker] = (JsonLines,),
    log_period: int = 10,
    eval_period: int = 100,
    save_period: int = 1000,
    started: Callable[[], None] = lambda: None,
) -> TrainState:
    """Trains to `total_steps`, from the newest checkpoint in `model_dir` if there is one.

    Returns the state it ends with, which is saved: at `total_steps`, or where a SIGTERM came.

    Args:
      model: what is trained.
      optimizer: makes the optimiser, given the parameters' axis names as `axes`.
      feed: makes the feed, given the run and `data`.
      data: batches by step.
      partitioner: the mesh and its rules.
      model_dir: of checkpoints and records.
      total_steps: updates in all, those before a resumption included.
      initial_checkpoint_path: parameters to start from, and the reference; None for fresh ones.
      reference_dtype: to keep the reference in; None for the policy's.
      random_seed: of everything random in the run but the order of the data.
      updates: how a batch becomes an update.
      checkpoints: makes the manager of `model_dir`.
      evaluations: by name, makers of what is asked every `eval_period` steps and at the end.
      writers: makers of the writers of records, given `model_dir` and the step it starts from.
      log_period: steps between records of metrics.
      eval_period: steps between evaluations.
      save_period: steps between checkpoints; the last step is always saved.
      started: called after the first step of this process.

    Raises:
      NonFiniteLoss: if a loss or gradient is not finite; the last good checkpoint stays.
      CheckpointError: if a checkpoint cannot be saved, for example on a full disk.
      ValueError: if a checkpoint does not fit the model, or the mesh cannot divide the batch.
    """
    partitioner.check_batch(data.batch_size, updates.micro_batches)
    key = jax.random.key(random_seed)
    transformation = optimizer(axes=model.parameter_axes())
    start = Start(
        model,
        transformation,
        partitioner,
        key,
        average=updates.average_decay is not None,
        checkpoint_path=initial_checkpoint_path,
    )
    manager = checkpoints(model_dir)
    state = start.state(manager)
    run = Run(
        language_model=model.language_model,
        load_reference=functools.partial(start.parameters, reference_dtype),
        partitioner=partitioner,
        key=key,
        directory=Path(model_dir),
    )
    batches = feed(run, data)
    asked = {name: make(run) for name, make in (evaluations or {}).items()}
    train_step = make_train_step(
        model, transformation, partitioner, start.shardings, **dataclasses.asdict(updates)
    )
    clock = StageClock()
    step = first = int(state.step)
    progress = Progress("training", total_steps)
    reporter = Reporter(writers_of(model_dir, writers, first), progress, clock, log_period)

    def save(results: Mapping[str, float]) -> None:
        reporter.settle()
        if step not in manager.steps:
            batches.save()
            manager.save(step, state, results)

    with contextlib.closing(manager), Interruption() as interruption, reporter:
        if first:
            reporter.note(f"resuming from step {first} of {model_dir}")
        while step < total_steps and interruption.signal is None:
            try:
                batch, facts = batches.batch(step, state, clock)
            except Exception:
                save({})  # the data or the annotator failed: the state is good
                raise
            began = time.monotonic()
            state, metrics = train_step(state, batch, key)
            clock.queued("updating", began, metrics)
            step += 1
            reporter.step(step, {**metrics, **facts})
            if step == first + 1:
                reporter.skip_times()
                started()
            last = step == total_steps
            results = {}
            if asked and (last or step % eval_period == 0):
                reporter.settle()
                began = time.monotonic()
                for name, evaluation in asked.items():
                    values, text = evaluation(state)
                    reporter.evaluation(step, name, values, text)
                    results |= {f"{name}/{key}": value for key, value in values.items()}
                clock.queued("evaluating", began, ())
            if last or step % save_period == 0:
                save(results)
        if interruption.signal is not None:
            save({})
            reporter.note(f"{interruption.signal}: saved step {step}; the same command resumes")
    return state
