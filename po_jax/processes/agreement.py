"""Work that processes share out, and its end: all have all results, or all end alike."""

from collections.abc import Callable, Sequence
import itertools
import json
import sys
from typing import Any

from po_jax.processes import talk

_rounds, _meetings = itertools.count(), itertools.count()


class Interrupted(BaseException):
    """Somebody asked to stop; the message is the signal. No failure, so no `Exception`."""


class Elsewhere(RuntimeError):
    """Another process failed; the message says which, and why."""


def own(items: Any) -> Any:
    """This process's share of some items, a sequence or array: every n-th of n processes."""
    return items[talk.index() :: talk.count()]


def gathered(work: Callable[[], Sequence[Any]]) -> list[Any]:
    """Everybody's results of `own` items, in the order of the items.

    All processes call this, in the same order among their collective computations. They may be of
    different speed, and need not succeed: what one raises ends the work of all.

    Args:
      work: this process's results, one for each of its own items, as JSON has them.

    Raises:
      Interrupted: if somebody asked to stop.
      Elsewhere: if it was another process's work that failed; or what this one's raised.
    """
    if talk.count() == 1:
        return list(work())
    failure: BaseException | None = None
    try:
        outcome = {"results": list(work())}
    except (Exception, Interrupted) as error:
        failure = error
        outcome = {"stopped" if isinstance(error, Interrupted) else "failed": str(error)}
    number = next(_rounds)
    texts = talk.exchange(f"round/{number}", json.dumps(outcome))
    if number:
        talk.forget(f"round/{number - 1}")  # All have read it, or they would not be here.
    assert texts is not None
    outcomes = [json.loads(text) for text in texts]
    if failure is not None and not isinstance(failure, Interrupted):
        raise failure
    for process, other in enumerate(outcomes):
        if "failed" in other:
            raise Elsewhere(f"process {process}: {other['failed']}")
    for other in outcomes:
        if "stopped" in other:
            raise Interrupted(other["stopped"])
    whole: list[Any] = [None] * sum(len(other["results"]) for other in outcomes)
    for process, other in enumerate(outcomes):
        whole[process :: len(outcomes)] = other["results"]
    return whole


def met(where: str, why: str, within: float) -> bool:
    """Whether all processes come here, and to the same place, in so many seconds.

    For what is collective and may be reached by some alone, such as saving after an error. Each
    says at once why it came, as it may be ended while it waits.
    """
    if talk.count() == 1:
        return True
    said = f"process {talk.index()} of {talk.count()}, {where}: {why.strip()}"
    print(said.partition("\n")[0], file=sys.stderr, flush=True)
    places = talk.exchange(f"met/{next(_meetings)}", where, within)
    return places is not None and len(set(places)) == 1
