"""Where a run's records go: what a writer is, who has one, and the writer of JSON Lines."""

from collections.abc import Callable, Iterable, Mapping
import json
import math
import os
from typing import Any, Protocol, runtime_checkable

from etils import epath

from po_jax import files, processes

Folder = str | os.PathLike
METRICS, TEXTS = "metrics.jsonl", "texts.jsonl"


@runtime_checkable
class Writer(Protocol):
    """Keeps a run's records. What a call wrote outlives a kill, so that nothing must be closed."""

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Records numbers of one step; `split` is "train" or the name of an evaluation."""

    def text(self, step: int, name: str, text: str) -> None:
        """Records a text in Markdown, such as samples beside their prompts."""


# Makes the writer of a run from its directory and the step that it goes on from. What was recorded
# of later steps is void: the run was killed after its last checkpoint and takes them once more.
# None, the default of all writers here, means that nothing is void.
Maker = Callable[[Folder, int | None], Writer]


def writers_of(directory: Folder, makers: Iterable[Maker], step: int | None = None) -> list[Writer]:
    """A run's writers on process 0; none elsewhere, so that no other process writes."""
    return [make(directory, step) for make in makers] if processes.index() == 0 else []


class JsonLines:
    """Appends to `metrics.jsonl` and `texts.jsonl`, a line each time.

    The lines are {"step": 10, "split": "train", "loss": 0.5, ...} and {"step": 10, "name":
    "held_out", "text": "..."}. JSON knows neither nan nor infinity: a line leaves them out.

    Args:
      directory: of the run; made if absent.
      step: that the run goes on from; lines of later steps are dropped. None keeps all.
    """

    def __init__(self, directory: Folder, step: int | None = None):
        folder = epath.Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics, self._texts = folder / METRICS, folder / TEXTS
        if step is not None:
            for path in (self._metrics, self._texts):
                _drop_after(step, path)

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends one line to `metrics.jsonl`."""
        numbers = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        _append(self._metrics, {"step": step, "split": split, **numbers})

    def text(self, step: int, name: str, text: str) -> None:
        """Appends one line to `texts.jsonl`."""
        _append(self._texts, {"step": step, "name": name, "text": text})


def _append(path: epath.Path, record: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def _drop_after(step: int, path: epath.Path) -> None:
    """Drops the lines of later steps, and one that a kill cut short; rewrites all or nothing."""
    if not path.exists():
        return
    text = path.read_text()
    lines = [line for line in text.split("\n") if line]  # "\n" alone ends a line of JSON Lines
    kept = "".join(f"{line}\n" for line in lines if not _is_later(line, step))
    if kept != text:
        with files.written_whole(path) as beside:
            beside.write_text(kept)


def _is_later(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] > step
    except json.JSONDecodeError:  # only the newest line can have been cut
        return True
