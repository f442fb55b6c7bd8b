"""What a run was made from: told in JSON, kept with it, and held against what goes on there.

The reference is pinned: a run goes on with the checkpoint that it began with, whatever its folder
has gained since.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import inspect
import json
import logging
import os
from typing import Any

from etils import epath
import jax
import numpy as np

from po_jax import files, processes
from po_jax.checkpoints.fingerprint import fingerprint
from po_jax.checkpoints.load import open_checkpoint
from po_jax.types import Params

logger = logging.getLogger(__name__)

FILE = "made_from.json"

# What a run may change when it is resumed, by the last part of its name: how long it goes on, what
# it tells and keeps, and how the work is cut for the machine. Micro-batches and partitions change
# results by rounding alone (with dropout, micro-batches draw another mask).
MAY_CHANGE = frozenset(
    (
        "total_steps log_period eval_period save_period writers evaluations started checkpoints "
        "model_dir initial_checkpoint_path partitioner num_partitions micro_batches remat_policy "
        "threads strategy optimizer_def feature_converter_cls input_vocabulary output_vocabulary"
    ).split()
)
_DEPTH = 12  # of what is described; deeper lies nothing of ours


def describe(
    thing: Any,
    bound: Callable[[Callable], Mapping[str, Any]] = lambda function: {},
    depth: int = _DEPTH,
) -> Any:
    """What something is, as JSON: numbers, names, and what these are put together from.

    Known are dataclasses, partial functions, functions with what they close over, arrays (by their
    fingerprint), containers, and whatever has a method `made_from` to say it itself. Of any other
    object the class is told, and its name if it has one.

    Args:
      thing: to be described.
      bound: arguments that a function is given by somebody else than its callers.
      depth: of what is told.
    """
    inner = functools.partial(describe, bound=bound, depth=depth - 1)
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if depth == 0:
        return "..."
    if isinstance(thing, np.generic):
        return thing.item()
    if isinstance(thing, np.ndarray | jax.Array):
        return fingerprint({"": jax.numpy.asarray(thing)})
    if isinstance(thing, Mapping):
        return {str(name): inner(value) for name, value in thing.items()}
    if isinstance(thing, np.dtype):
        return thing.name
    if inspect.isclass(thing):
        return _name(thing)
    if hasattr(thing, "made_from"):
        return inner(thing.made_from())
    if dataclasses.is_dataclass(thing):
        fields = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
        return {"is": _name(type(thing)), **_fields(fields, inner)}
    if isinstance(thing, list | tuple):
        return [inner(value) for value in thing]
    if isinstance(thing, functools.partial):
        given = {str(index): value for index, value in enumerate(thing.args)} | thing.keywords
        called = inner(thing.func)
        called = called if isinstance(called, dict) else {"is": called}
        return {**called, **_fields(given, inner)}
    if inspect.isfunction(thing):
        own = inspect.unwrap(thing)
        closed = inspect.getclosurevars(own).nonlocals if own.__closure__ else {}
        return {"is": _name(own), **_fields({**closed, **bound(thing)}, inner)}
    named = getattr(thing, "name", None)
    return {"is": _name(type(thing)), **({"name": named} if isinstance(named, str) else {})}


def _fields(values: Mapping[str, Any], inner: Callable[[Any], Any]) -> dict[str, Any]:
    return {name: inner(value) for name, value in values.items() if name not in MAY_CHANGE}


def _name(thing: Any) -> str:
    return getattr(thing, "__qualname__", type(thing).__qualname__)


class Origin:
    """Where a run starts from, and what it is made from.

    Args:
      directory: of the run.
      checkpoint_path: where the parameters come from, as it was given; None for fresh ones.
      begun: whether the directory has a checkpoint to go on from; otherwise all begins anew.

    Raises:
      ValueError: if the start lies in the run's own directory, or there is none.
    """

    def __init__(self, directory: epath.PathLike, checkpoint_path: str | None, begun: bool):
        self._file = epath.Path(directory) / FILE
        self._directory = str(directory)
        self._record = self._read() if begun else None
        self._begun = begun
        self._start = self._resolve(checkpoint_path)

    @property
    def checkpoint_path(self) -> str | None:
        """The very checkpoint that the run began with."""
        return self._start and self._start["path"]

    def hold(self, facts: Mapping[str, Any], load: Callable[[], Params]) -> None:
        """Holds what the run is made from now against the record, or keeps it for the record.

        Args:
          facts: as JSON has them.
          load: the parameters of the start, in the reference's dtype.

        Raises:
          ValueError: naming what differs, with both values; be it from what another process has.
        """
        facts = json.loads(json.dumps(facts))
        processes.alike(facts)
        recorded, self._record = self._record, {"start": self._start, **facts}
        if not self._begun:
            return
        if recorded is None:
            logger.warning("%s: no %s says what it was made from: from now on", *self._where())
        else:
            self._compare(recorded, facts)
            if self._start and self._start["path"] != recorded["start"]["path"]:
                self.known(load())
        self._write()

    def begin(self, params: Params) -> None:
        """Records a run that begins with these parameters, in the reference's dtype."""
        self._start = {**(self._start or {"path": None}), "fingerprint": fingerprint(params)}
        processes.alike({"the start": self._start})
        self._record = {**(self._record or {}), "start": self._start}
        self._write()

    def known(self, reference: Params) -> Params:
        """The reference, if it is the one that the run began with.

        Raises:
          ValueError: if it is not.
        """
        assert self._start is not None
        found, expected = fingerprint(reference), self._start.get("fingerprint")
        if expected is None:
            self.begin(reference)
        elif found != expected:
            raise ValueError(
                f"{self._directory}: expected the parameters that this run began with "
                f"({expected}), got {found} from {self._start['path']}: they have changed since"
            )
        return reference

    def _where(self) -> tuple[str, str]:
        return self._directory, FILE

    def _resolve(self, given: str | None) -> dict[str, Any] | None:
        recorded = (self._record or {}).get("start")
        if given is None:
            if recorded and recorded["path"]:
                raise ValueError(_differs(self._directory, "the start", recorded["path"], None))
            return recorded or {"path": None}
        given = str(files.absolute(given))
        if recorded and recorded.get("given") == given:
            if not epath.Path(recorded["path"]).exists():
                raise ValueError(
                    f"{self._directory}: expected the checkpoint that this run began with, "
                    f"{recorded['path']}, got no such path"
                )
            return recorded
        if self._record and not (recorded and recorded["path"]):
            raise ValueError(_differs(self._directory, "the start", None, given))
        checkpoint = open_checkpoint(given)
        path = _real(checkpoint.path)
        if _real(self._directory) in (path, os.path.dirname(path)):
            raise ValueError(
                f"expected INITIAL_CHECKPOINT_PATH outside of MODEL_DIR, {self._directory}, got "
                f"{given}: a run cannot start from its own checkpoints"
            )
        start = {"given": given, "path": path, "step": int(checkpoint.step)}
        return start | {k: v for k, v in (recorded or {}).items() if k == "fingerprint"}

    def _compare(self, recorded: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        before = {name: value for name, value in recorded.items() if name != "start"}
        if found := processes.difference(before, facts):
            raise ValueError(_differs(self._directory, *found))

    def _read(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._file.read_text()) if self._file.exists() else None
        except json.JSONDecodeError as error:
            raise ValueError(f"{self._file}: expected JSON, got {error}") from error

    def _write(self) -> None:
        if processes.index() == 0:
            with files.written_whole(self._file) as beside:
                beside.write_text(json.dumps(self._record, indent=1) + "\n")


def _differs(directory: str, name: str, before: Any, now: Any) -> str:
    return (
        f"{directory} was made with {name} {before!r}: expected the same "
        f"to go on, got {now!r} (another run needs another MODEL_DIR)"
    )


def _real(path: epath.PathLike) -> str:
    text = os.fspath(path)
    return text if "://" in text else os.path.realpath(text)
