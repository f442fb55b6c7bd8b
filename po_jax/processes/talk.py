"""Texts that processes leave for each other at the coordination service."""

import time
from typing import Any

import jax

_FOLDER = "po_jax"
_last_beat = time.monotonic()


def index() -> int:
    """Which process this is, from 0."""
    return jax.process_index()


def count() -> int:
    """How many processes run the program together."""
    return jax.process_count()


def tell(folder: str, text: str) -> None:
    """Leaves this process's text in a folder; a second one replaces the first."""
    _client().key_value_set(f"{_FOLDER}/{folder}/{index()}", text, True)


def told(folder: str) -> dict[int, str]:
    """What has been left in a folder, by process."""
    found = _client().key_value_dir_get(f"{_FOLDER}/{folder}/")
    return {int(key.rpartition("/")[2]): text for key, text in found}


def forget(folder: str) -> None:
    """Takes back what this process left in a folder."""
    _client().key_value_delete(f"{_FOLDER}/{folder}/{index()}")


def exchange(folder: str, text: str, within: float | None = None) -> list[str] | None:
    """Leaves a text and waits for everybody's; None if they do not all come in so many seconds."""
    tell(folder, text)
    began, pause = time.monotonic(), 0.002
    while len(found := told(folder)) < count():
        beat()  # Whoever is waited for has a watchdog of its own.
        if within is not None and time.monotonic() - began > within:
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.2)
    return [found[process] for process in range(count())]


def beat() -> None:
    """Notes that this process goes on."""
    global _last_beat
    _last_beat = time.monotonic()


def silence() -> float:
    """Seconds since the last beat."""
    return time.monotonic() - _last_beat


def _client() -> Any:
    # JAX has no public door to its service's texts; Orbax, too, enters here.
    from jax._src import distributed

    client = distributed.global_state.client
    if client is None:
        raise RuntimeError("expected jax.distributed to be initialised, got no service")
    return client
