"""What must be the same on all processes, held against each other before it can go wrong."""

from collections.abc import Mapping
from typing import Any

from po_jax.processes import talk
from po_jax.processes.agreement import gathered


def alike(facts: Mapping[str, Any]) -> None:
    """Holds what this process has against what the first one has; all processes call this.

    Args:
      facts: by name, as JSON has them.

    Raises:
      ValueError: naming the first that differs, with both values; on all processes.
    """
    if talk.count() == 1:
        return
    first, *others = gathered(lambda: [facts])
    for process, other in enumerate(others, 1):
        if found := difference(first, other):
            name, expected, got = found
            raise ValueError(
                f"expected {name} to be the same on every process, got {expected!r} on process 0 "
                f"and {got!r} on process {process}"
            )


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Where two trees of JSON differ first: the path and both leaves; None if nowhere."""
    before, now = _flat(one), _flat(other)
    for name in [*before, *(name for name in now if name not in before)]:
        if before.get(name) != now.get(name):
            return name, before.get(name), now.get(name)
    return None


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    """The leaves of a JSON tree by their paths."""
    if isinstance(tree, list):
        tree = {str(index): value for index, value in enumerate(tree)}
    if not isinstance(tree, dict):
        return {name: tree}
    found = {}
    for key, value in tree.items():
        found |= _flat(value, f"{name}.{key}" if name else key)
    return found
