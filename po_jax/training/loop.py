"""The training loop: restore, then feed, step, report, evaluate and save until the end.

Every algorithm runs through here. What differs between them is bound from outside: the model with
its loss, and the feed that says where batches come from.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
import time
from typing import Any, TextIO

from etils import epath
import optax

from po_jax import files, processes
from po_jax.checkpoints.manager import CheckpointError, CheckpointManager
from po_jax.data.corpus import Batches
from po_jax.interruption import Interrupted, Interruption, check
from po_jax.models.base import Model
from po_jax.partitioning import Partitioner
from po_jax.reporting.clock import StageClock
from po_jax.reporting.progress import Progress
from po_jax.reporting.reporter import NonFiniteLoss, Reporter
from po_jax.reporting.writers import JsonLines, Maker, writers_of
from po_jax.training.early_stopping import EarlyStopping
from po_jax.training.held_out import Evaluation
from po_jax.training.made_from import Origin, describe
from po_jax.training.randomness import root_key
from po_jax.training.run import Feed, Run
from po_jax.training.start import Start, cast
from po_jax.training.state import TrainState
from po_jax.training.step import make_train_step
from po_jax.types import Params

_MEET_WITHIN = 10.0  # seconds


@dataclasses.dataclass(frozen=True)
class Updates:
    """How a batch becomes an update.

    Attributes:
      micro_batches: pieces a batch is processed in at least, to save memory.
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
      optimizer: turns gradients into updates; any transformation of optax.
      feed: makes the feed, given the run and the data.
      data: batches by step, or what reads them, after all that is quicker to look at.
      partitioner: the mesh and its rules.
      model_dir: of checkpoints and records.
      total_steps: updates in all, those before a resumption included.
      initial_checkpoint_path: parameters to start from, and the reference; None for fresh ones.
      reference_dtype: to keep the reference in; None for the one that it is read in.
      random_seed: of everything random in the run but the order of the data.
      updates: how a batch becomes an update.
      checkpoints: makes the manager of `model_dir`.
      evaluations: by name, makers of what is asked every `eval_period` steps and at the end.
      writers: make what keeps the run's records.
      log_period: steps between records of metrics.
      eval_period: steps between evaluations; the first is of the start, the last of the end.
      save_period: steps between checkpoints; the last step is always saved.
      early_stopping: ends the run before `total_steps`, by its evaluations; None for never.
      started: called after the first step of this process.
      bound: what a function's caller does not see: the arguments that gin binds to it, by name.

    Raises:
      ValueError: on steps or a period less than 1, a seed out of its range, or a loss that counts
        padding where rows are cut.
    """

    model: Model
    optimizer: optax.GradientTransformation
    feed: Callable[[Run, Batches], Feed]
    data: Batches | Callable[[], Batches]
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
    early_stopping: EarlyStopping | None = None
    started: Callable[[], None] = lambda: None
    bound: Callable[[Callable], Mapping[str, Any]] = lambda function: {}

    def __post_init__(self):
        for name in ("total_steps", "log_period", "eval_period", "save_period"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"Trainer.{name}: expected 1 or more, got {value}")
        if self.early_stopping is not None and not self.evaluations:
            raise ValueError("Trainer.early_stopping: expected evaluations to go by, got none")
        if self.reference_dtype is not None and self.model.language_model.frozen:
            raise ValueError(
                "Trainer.reference_dtype: expected None where the reference shares the policy's "
                f"frozen parameters, got {self.reference_dtype!r}"
            )
        shares = self.partitioner.lengths.shares
        if self.model.counts_padding and len(shares) > 1:
            raise ValueError(
                f"expected lengths (LENGTHS) of (1.0,) for a loss that counts padding, got {shares}"
            )
        root_key(self.random_seed)
        object.__setattr__(self, "model_dir", str(files.absolute(self.model_dir)))

    def read(self) -> Batches:
        """The data, read if they have not been."""
        return self.data() if callable(self.data) else self.data

    def made_from(self, data: Batches, feed: Feed) -> dict[str, Any]:
        """What changes what this run learns, but for where it starts."""
        parts = {
            "seed": self.random_seed,
            "data": data,
            "model": self.model,
            "feed": feed,
            "optimizer": self.optimizer,
            "updates": self.updates,
            "reference_dtype": self.reference_dtype,
        }
        return describe(parts, self.bound)

    def train(self) -> TrainState:
        """Trains to `total_steps`, from the newest checkpoint in `model_dir` if there is one.

        Returns the state it ends with, which is saved: at `total_steps`, or where a SIGTERM came.

        Raises:
          NonFiniteLoss: if a loss or gradient is not finite; the last good checkpoint stays.
          CheckpointError: if a checkpoint cannot be saved, for example on a full disk.
          ValueError: if the mesh cannot divide the batch, a checkpoint does not fit the model, or
            what is in `model_dir` was made from something else.
        """
        with _Training(self) as training:
            training.go_on()
            return training.state


class _Training:
    """A run under way: the state, and whatever serves it. As a context it waits for the writing."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._key = root_key(trainer.random_seed)
        self._manager = trainer.checkpoints(trainer.model_dir)
        begun = bool(self._manager.steps)
        origin = Origin(trainer.model_dir, trainer.initial_checkpoint_path, begun)
        start = Start(
            trainer.model,
            trainer.optimizer,
            trainer.partitioner,
            self._key,
            average=trainer.updates.average_decay is not None,
            checkpoint_path=origin.checkpoint_path,
        )

        def load_start() -> Params:
            return start.parameters(trainer.reference_dtype)

        run = Run(
            language_model=trainer.model.language_model,
            load_reference=lambda: origin.known(load_start()),
            partitioner=trainer.partitioner,
            key=self._key,
            directory=epath.Path(trainer.model_dir),
            join=start.join,
        )
        data = trainer.read()
        trainer.partitioner.check_batch(data.batch_size, trainer.updates.micro_batches)
        self._feed = trainer.feed(run, data)
        origin.hold(trainer.made_from(data, self._feed), load_start)
        self.state = start.state(
            self._manager, lambda params: origin.begin(cast(params, trainer.reference_dtype))
        )
        self._step = self._first = int(self.state.step)
        progress = self._manager.progress(self._first) if self._first else {"evaluated": False}
        # Whether the evaluation that is due at this step has been done and recorded.
        self._evaluated = progress.get("evaluated", True)
        self._followed = progress.get("early_stopping")
        self._evaluations = {name: make(run) for name, make in (trainer.evaluations or {}).items()}
        self._train_step = make_train_step(
            trainer.model,
            trainer.optimizer,
            trainer.partitioner,
            start.shardings,
            *start.frozen_shardings,
            **dataclasses.asdict(trainer.updates),
        )
        self._frozen = [start.frozen] if start.frozen_shardings else []
        self._about = start.about
        self._clock = StageClock()
        # An evaluation that was cut short may have been made since, and recorded.
        kept = self._first if self._evaluated else self._first - 1
        writers = writers_of(trainer.model_dir, trainer.writers, kept)
        shown = Progress("training", trainer.total_steps, _console())
        self._reporter = Reporter(writers, shown, self._clock, trainer.log_period)
        self._reporter.resume(self._first, progress, rewrite=not self._evaluated)

    def __enter__(self) -> "_Training":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        try:
            self._manager.close()
        except CheckpointError as second:
            if error is None:
                raise
            self._reporter.note(str(second))

    def go_on(self) -> None:
        """Steps until the end, or until somebody asks to stop; saves, whatever ends it.

        Where an evaluation, the feed or a writer raises, the state is good: it is saved, and what
        is raised is their error, even if saving fails too. Where it raises on one process alone,
        nothing can be saved, as all must: the error ends them.
        """
        trainer, reporter = self._trainer, self._reporter
        if self._first >= trainer.total_steps:
            reporter.note(f"already at step {self._first} of {trainer.total_steps}")
        elif self._over:
            reporter.note(f"already ended at step {self._first}: {self._why}")
        elif self._first:
            reporter.note(f"resuming from step {self._first} of {trainer.model_dir}")
        try:
            with Interruption(), reporter:
                self._take_steps()
        except Interrupted as signal:
            if self._step:
                self._save({})
                reporter.note(f"{signal}: saved step {self._step}; the same command resumes")
            else:
                reporter.note(f"{signal}: ended before the first step")
        except (NonFiniteLoss, CheckpointError):
            raise  # there is nothing good to save, or no place for it
        except Exception as error:
            if not processes.met(f"an error at step {self._step}", str(error), _MEET_WITHIN):
                processes.fail(str(error))
                raise
            try:
                if self._step:  # at step 0 there is nothing to keep, and perhaps much to correct
                    self._save({})
                    self._manager.wait()
            except Exception as second:  # the first error is the one to mend
                reporter.note(f"step {self._step} could not be saved: {second}".splitlines()[0])
            raise

    def _take_steps(self) -> None:
        if not self._evaluated:
            self._end_step()  # at step 0: how the start does
        while not self._over:
            check()
            self._take_step()
            self._end_step()
        if self._first < self._step < self._trainer.total_steps:
            self._reporter.note(f"ended at step {self._step}: {self._why}")

    @property
    def _over(self) -> bool:
        early = self._trainer.early_stopping
        if self._step >= self._trainer.total_steps:
            return True
        return early is not None and self._evaluated and early.ended(self._followed)

    @property
    def _why(self) -> str:
        """Why it ended early."""
        early = self._trainer.early_stopping
        assert early is not None and self._followed is not None  # or it would not be over
        return early.reason(self._followed)

    def _take_step(self) -> None:
        batch, facts = self._feed.batch(self._step, self.state, self._clock)
        began = time.monotonic()
        self.state, metrics = self._train_step(self.state, batch, self._key, *self._frozen)
        self._clock.queued("updating", began, metrics)
        self._step += 1
        self._reporter.step(self._step, {**metrics, **facts})
        if self._step == self._first + 1:
            self._reporter.skip_times()
            self._trainer.started()

    def _end_step(self) -> None:
        """Evaluates and saves, where that is due."""
        trainer = self._trainer
        last = self._step >= trainer.total_steps
        results = {}
        if self._evaluations and (last or self._step % trainer.eval_period == 0):
            self._evaluated = False
            results = self._evaluate()
            if trainer.early_stopping is not None:
                known = trainer.early_stopping.follow(self._followed, self._step, results)
                self._followed = processes.gathered(lambda: [known])[0]  # all go by the first's
        self._evaluated = True
        last = self._over
        if last:
            self._reporter.flush()
        if last or (self._step and self._step % trainer.save_period == 0):
            self._save(results)

    def _evaluate(self) -> dict[str, float]:
        """All evaluations, then their records: all or none."""
        self._reporter.settle()
        began = time.monotonic()
        results = {}
        found = {}
        for name, evaluation in self._evaluations.items():
            check()
            found[name] = evaluation(self.state)
        for name, (values, text) in found.items():
            self._reporter.evaluation(self._step, name, values, text)
            results |= {f"{name}/{key}": value for key, value in values.items()}
        self._clock.queued("evaluating", began, ())
        return results

    def _save(self, results: Mapping[str, float]) -> None:
        self._reporter.settle()
        if self._step not in self._manager.steps:
            self._feed.save()
            progress = {"evaluated": self._evaluated, **self._reporter.progress()}
            if self._followed is not None:
                progress["early_stopping"] = self._followed
            self._manager.save(self._step, self.state, results, self._about, progress)


def _console() -> TextIO | None:
    """Where progress is shown: the first process's line speaks for all."""
    return None if processes.index() == 0 else open(os.devnull, "w")
