"""The checkpoints of one run: saved while training goes on, kept by age and by merit, restored.

A run's directory holds `checkpoint_<step>/state`, as T5X's does. A save becomes visible only when
it is whole; one that is damaged later is set aside and the one before it is used.
"""

from collections.abc import Mapping
import logging
import math
import os
import shutil
import time
from typing import Any
import uuid

from etils import epath
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from po_jax import files, processes
from po_jax.checkpoints import orbax, zarr
from po_jax.checkpoints.about import About
from po_jax.checkpoints.quiet import keep_quiet
from po_jax.checkpoints.writing import state_writer, temporary_path
from po_jax.names import nearest

logger = logging.getLogger(__name__)

UNFINISHED = ".orbax-checkpoint-tmp"
State = Any  # a pytree of arrays


class CheckpointError(RuntimeError):
    """A checkpoint could not be saved or restored; the message says what is left."""


class CheckpointManager:
    """Saves and restores the train state of a run.

    Args:
      directory: of the run; made if absent.
      keep: newest checkpoints to keep, at least 1.
      best: name of the metric whose best checkpoint is kept too; None for no such checkpoint.
      largest: whether the best value is the largest; otherwise it is the smallest.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        keep: int = 3,
        best: str | None = None,
        largest: bool = True,
    ):
        if keep < 1:
            raise ValueError(f"CheckpointManager: expected keep >= 1, got {keep}")
        keep_quiet()
        self._directory = files.absolute(directory)
        _require_writable(self._directory)
        _require_shared(self._directory)
        self._best = best
        self._failure: Exception | None = None  # of a writer in the background
        policies = [preservation.LatestN(keep)]
        scored = {}
        if best is not None:
            missing = float("-inf") if largest else float("inf")

            def merit(metrics: Mapping[str, float]) -> float:
                value = metrics.get(best, missing)
                return missing if math.isnan(value) else value

            policies.append(preservation.BestN(get_metric_fn=merit, reverse=not largest, n=1))
            scored = {"best_fn": merit, "best_mode": "max" if largest else "min"}
        with files.reaching(self._directory):
            self._orbax = ocp.CheckpointManager(
                self._directory,
                options=ocp.CheckpointManagerOptions(
                    step_prefix="checkpoint",
                    preservation_policy=preservation.AnyPreservationPolicy(policies),
                    cleanup_tmp_directories=True,
                    temporary_path_class=temporary_path(self._directory, self._failed),
                    **scored,
                ),
                item_handlers={
                    "state": state_writer(self._failed),
                    "progress": ocp.JsonCheckpointHandler(),
                },
            )

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints that are whole, ascending."""
        return sorted(self._orbax.all_steps())

    @property
    def best_step(self) -> int | None:
        """Step of the best checkpoint by the metric, if one has been saved."""
        return self._orbax.best_step() if self._best is not None else None

    def save(
        self,
        step: int,
        state: State,
        metrics: Mapping[str, float] | None = None,
        about: About | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        """Copies the state and writes it in the background, once the save before it is done.

        Args:
          step: of the state.
          state: what is saved, a pytree of arrays.
          metrics: by name, of the evaluation at this step; by them checkpoints are kept on merit.
          about: what the checkpoint says of itself beside its arrays.
          progress: what else a resumed run needs to go on from this very step, as JSON has it.

        Raises:
          CheckpointError: if this or the save before it failed, for example on a full disk.
          ValueError: if no evaluation has had the `best` metric; the checkpoint is saved.
        """
        numbers = {name: float(value) for name, value in (metrics or {}).items()}
        try:
            self._await_writers()
            self._orbax.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    progress=ocp.args.JsonSave(dict(progress or {})),
                ),
                metrics=numbers,
                custom_metadata=None if about is None else about.to_json(),
            )
        except Exception as error:
            self._failed(error)
            raise self._save_failed(error) from error
        self._check_best(numbers)

    def _check_best(self, metrics: Mapping[str, float]) -> None:
        """A metric may be absent at times; one that never came is misspelt."""
        if self._best is None or self._best in metrics or not metrics:
            return
        self.wait()
        if any(self._best in (self._orbax.metrics(step) or {}) for step in self.steps):
            return
        raise ValueError(
            f"CheckpointManager.best: expected one of the metrics {sorted(metrics)}, got "
            f"{self._best!r}.{nearest(self._best, metrics)} Step {self.steps[-1]} is saved."
        )

    def wait(self) -> None:
        """Returns when everything saved so far is on disk.

        Raises:
          CheckpointError: if a save failed.
        """
        try:
            self._await_writers()
            self._orbax.wait_until_finished()
        except Exception as error:
            raise self._save_failed(error) from error

    def close(self) -> None:
        """Waits for saves under way and lets go of the directory."""
        if self._failure is not None and processes.count() > 1:
            return  # Threads of Orbax wait for processes that will not come.
        self.wait()
        self._orbax.close()

    def _failed(self, error: Exception) -> None:
        self._failure = error

    def _await_writers(self) -> None:
        """Waits for the save under way; of several processes, one that failed does not."""
        while processes.count() > 1 and self._orbax.is_saving_in_progress():
            if self._failure is not None:
                raise self._failure
            time.sleep(0.02)

    def restore(self, like: State, about: About | None = None) -> tuple[int, State] | None:
        """The newest whole checkpoint and its step, or None where there is none.

        Newer checkpoints that cannot be read are set aside, as `damaged_checkpoint_<step>`, with
        a warning.

        Args:
          like: shapes, dtypes and shardings to restore into.
          about: of the model that goes on; a checkpoint of another kind is refused.

        Raises:
          ValueError: if the checkpoint is of a model of another size or kind.
          CheckpointError: if there are checkpoints and none can be read.
        """
        damaged = {}
        for step in reversed(self.steps):
            try:
                saved = self._orbax.item_metadata(step)["state"].tree
                self._check_shapes(like, saved, step)
                self._check_about(about, step)
                restored = self._orbax.restore(
                    step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
                )
                problem = None
            except _WrongModel:
                raise
            except Exception as error:  # tensorstore and json raise many unrelated types
                problem = str(error).splitlines()[0]
            problems = processes.gathered(lambda found=problem: [found])
            if any(problems):  # for some process is for all
                damaged[step] = next(filter(None, problems))
                continue
            self._set_aside(damaged)
            return step, restored["state"]
        if damaged:
            raise CheckpointError(f"no checkpoint in {self._directory} can be read: {damaged}")
        return None

    def progress(self, step: int) -> dict[str, Any]:
        """What was saved beside the state of a step; nothing where it was saved without any."""
        try:
            wanted = ocp.args.Composite(progress=ocp.args.JsonRestore())
            return self._orbax.restore(step, args=wanted)["progress"]
        except KeyError:  # checkpoints of earlier versions, and steps that there are none of
            return {}

    def _check_shapes(self, like: State, saved: Any, step: int) -> None:
        where = f"{self._directory}/checkpoint_{step}"
        expected, found = _shapes(like), _shapes(saved)
        for name in [*expected, *(name for name in found if name not in expected)]:
            if expected.get(name) != found.get(name):
                raise _WrongModel(
                    f"{where}: expected {name} of shape {expected.get(name, 'none: it is absent')}"
                    f", got {found.get(name, 'none: it is absent')}: "
                    "the checkpoint is of another model or optimiser"
                )

    def _check_about(self, wanted: About | None, step: int) -> None:
        if wanted is None:
            return
        folder = self._directory / f"checkpoint_{step}"
        found = orbax.about(folder / "state")
        try:
            found.require(f"{folder}", (wanted.kind,), wanted)
            found.require_base(f"{folder}", wanted)
        except ValueError as error:
            raise _WrongModel(str(error)) from error

    def _set_aside(self, damaged: Mapping[int, str]) -> None:
        for step, error in damaged.items():
            source = self._directory / f"checkpoint_{step}"
            target = self._directory / f"damaged_checkpoint_{step}"
            while target.exists():
                target = target.with_name(f"{target.name}_again")
            logger.warning("%s is damaged (%s): moved to %s", source, error, target.name)
            processes.gathered(lambda source=source, target=target: _renamed(source, target))
        if damaged:
            self._orbax.reload()

    def _save_failed(self, error: Exception) -> CheckpointError:
        for half in self._directory.glob(f"*{UNFINISHED}"):
            files.remove_remains(half)
        # Orbax counts what it has begun, too.
        ends = (path.name.rpartition("_")[2] for path in self._directory.glob("checkpoint_*"))
        whole = [int(end) for end in ends if end.isdigit()]
        last = f"step {max(whole)}" if whole else "none yet"
        return CheckpointError(
            f"could not save to {self._directory}{_room(self._directory)}: "
            f"{zarr.reason(error)}; the last whole checkpoint is {last}"
        )


class _WrongModel(ValueError):
    """A readable checkpoint that does not fit."""


def _require_writable(directory: epath.Path) -> None:
    # Processes on several hosts may have one number.
    probe = directory / f".probe-{processes.index()}-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except Exception as error:  # of the operating system, or of what writes to gs://
        reason = getattr(error, "strerror", None) or zarr.reason(error)
        reason = "a file" if directory.is_file() else reason
        raise ValueError(
            f"{directory}: expected a folder that can be written to, got: {reason}"
        ) from error


def _require_shared(directory: epath.Path) -> None:
    """Refuses a folder that is not one and the same to all processes."""
    if processes.count() == 1:
        return

    def left() -> list[str]:
        mark = directory / f".shared-{uuid.uuid4().hex}"
        if processes.index() == 0:
            mark.write_text("")
        return [mark.name]

    def seen() -> list[bool]:
        for wait in (0.0, 0.5, 1.0, 2.0, 4.0):  # A file system of a network may show it late.
            time.sleep(wait)
            if mark.exists():
                return [True]
        return [False]

    mark = directory / processes.gathered(left)[0]
    there = processes.gathered(seen)
    if processes.index() == 0:
        mark.unlink(missing_ok=True)
    if not all(there):
        raise ValueError(
            f"{directory}: expected a folder that all processes share, got one of its own on "
            f"process {there.index(False)}: a run needs a shared file system, or a bucket"
        )


def _room(directory: epath.Path) -> str:
    """What is free on the disk, in brackets; a bucket has no end, and a lost disk tells nothing."""
    try:
        return f" ({shutil.disk_usage(directory).free / 2**20:.0f} MiB free)"
    except OSError:
        return ""


def _renamed(source: epath.Path, target: epath.Path) -> list[None]:
    """Renames, on the first process alone."""
    if processes.index() == 0:
        source.rename(target)
    return [None]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = {"/".join(str(_key(key)) for key in path): leaf for path, leaf in leaves}
    return {name: tuple(leaf.shape) for name, leaf in names.items()}


def _key(key: Any) -> Any:
    return getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))
