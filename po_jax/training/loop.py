"""The training loop: restore, then feed, step, report, evaluate and save until the end.

Every algorithm runs through here. What differs between them is bound from outside: the model with
its loss, and the feed that says where batches come from.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import functools
import time

from etils import epath
import jax
import optax

from po_jax.checkpoints import paths
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

    Raises:
      ValueError: on a value out of its range.
    """

    micro_batches: int = 1
    max_gradient_norm: float | None = None
    average_decay: float | None = None

    def __post_init__(self):
        if self.micro_batches < 1:
            raise ValueError(f"Updates.micro_batches: expected 1 or more, got {self.micro_batches}")
        if self.max_gradient_norm is not None and not self.max_gradient_norm > 0.0:
            raise ValueError(
                f"Updates.max_gradient_norm: expected more than 0, got {self.max_gradient_norm}"
            )
        if self.average_decay is not None and not 0.0 <= self.average_decay < 1.0:
            raise ValueError(
                f"Updates.average_decay: expected a share in [0, 1), got {self.average_decay}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """One run of training; `train` begins or resumes it.

    Attributes:
      model: what is trained.
      optimizer: how.
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
      writers: make what keeps the run's records.
      log_period: steps between records of metrics.
      eval_period: steps between evaluations.
      save_period: steps between checkpoints; the last step is always saved.
      started: called after the first step of this process.

    Raises:
      ValueError: on steps or a period less than 1, or if the mesh cannot divide the batch.
    """

    model: Model
    optimizer: optax.GradientTransformation
    feed: Callable[[Run, BatchStream], Feed]
    data: BatchStream
    partitioner: Partitioner
    model_dir: str
    total_steps: int
    initial_checkpoint_path: str | None = None
    reference_dtype: str | None = None
    random_seed: int = 0
    updates: Updates = Updates()
    checkpoints: Callable[[str], CheckpointManager] = CheckpointManager
    evaluations: Mapping[str, Callable[[Run], Evaluation]] | None = None
    writers: Sequence[Maker] = (JsonLines,)
    log_period: int = 10
    eval_period: int = 100
    save_period: int = 1000
    started: Callable[[], None] = lambda: None

    def __post_init__(self):
        for name in ("total_steps", "log_period", "eval_period", "save_period"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"Trainer.{name}: expected 1 or more, got {value}")
        object.__setattr__(self, "model_dir", str(paths.absolute(self.model_dir)))
        self.partitioner.check_batch(self.data.batch_size, self.updates.micro_batches)

    def train(self) -> TrainState:
        """Trains to `total_steps`, from the newest checkpoint in `model_dir` if there is one.

        Returns the state it ends with, which is saved: at `total_steps`, or where a SIGTERM came.

        Raises:
          NonFiniteLoss: if a loss or gradient is not finite; the last good checkpoint stays.
          CheckpointError: if a checkpoint cannot be saved, for example on a full disk.
          ValueError: if a checkpoint does not fit the model.
        """
        with contextlib.closing(_Training(self)) as training:
            training.go_on()
            return training.state


class _Training:
    """A run under way: the state, and whatever serves it."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._key = jax.random.key(trainer.random_seed)
        start = Start(
            trainer.model,
            trainer.optimizer,
            trainer.partitioner,
            self._key,
            average=trainer.updates.average_decay is not None,
            checkpoint_path=trainer.initial_checkpoint_path,
        )
        self._manager = trainer.checkpoints(trainer.model_dir)
        self.state = start.state(self._manager)
        self._step = self._first = int(self.state.step)
        run = Run(
            language_model=trainer.model.language_model,
            load_reference=functools.partial(start.parameters, trainer.reference_dtype),
            partitioner=trainer.partitioner,
            key=self._key,
            directory=epath.Path(trainer.model_dir),
        )
        self._feed = trainer.feed(run, trainer.data)
        self._evaluations = {name: make(run) for name, make in (trainer.evaluations or {}).items()}
        self._train_step = make_train_step(
            trainer.model,
            trainer.optimizer,
            trainer.partitioner,
            start.shardings,
            **dataclasses.asdict(trainer.updates),
        )
        self._clock = StageClock()
        progress = Progress("training", trainer.total_steps)
        writers = writers_of(trainer.model_dir, trainer.writers, self._first)
        self._reporter = Reporter(writers, progress, self._clock, trainer.log_period)

    def go_on(self) -> None:
        """Steps until the end, or until somebody asks to stop."""
        trainer, reporter = self._trainer, self._reporter
        if self._first:
            reporter.note(f"resuming from step {self._first} of {trainer.model_dir}")
        with Interruption() as interruption, reporter:
            while self._step < trainer.total_steps and interruption.signal is None:
                self._take_step()
                last = self._step == trainer.total_steps
                results = {}
                if self._evaluations and (last or self._step % trainer.eval_period == 0):
                    results = self._evaluate()
                if last or self._step % trainer.save_period == 0:
                    self._save(results)
            if interruption.signal is not None:
                self._save({})
                reporter.note(
                    f"{interruption.signal}: saved step {self._step}; the same command resumes"
                )

    def _take_step(self) -> None:
        try:
            batch, facts = self._feed.batch(self._step, self.state, self._clock)
        except Exception:
            self._save({})  # the data or the judge failed: the state is good
            raise
        began = time.monotonic()
        self.state, metrics = self._train_step(self.state, batch, self._key)
        self._clock.queued("updating", began, metrics)
        self._step += 1
        self._reporter.step(self._step, {**metrics, **facts})
        if self._step == self._first + 1:
            self._reporter.skip_times()
            self._trainer.started()

    def _evaluate(self) -> dict[str, float]:
        self._reporter.settle()
        began = time.monotonic()
        results = {}
        for name, evaluation in self._evaluations.items():
            values, text = evaluation(self.state)
            self._reporter.evaluation(self._step, name, values, text)
            results |= {f"{name}/{key}": value for key, value in values.items()}
        self._clock.queued("evaluating", began, ())
        return results

    def _save(self, results: Mapping[str, float]) -> None:
        self._reporter.settle()
        if self._step not in self._manager.steps:
            self._feed.save()
            self._manager.save(self._step, self.state, results, self._trainer.model.about())

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()
