"""How the processes of one command find each other, before anything of JAX has started.

PO_JAX_COORDINATOR=HOST:PORT of process 0, with PO_JAX_NUM_PROCESSES and PO_JAX_PROCESS_ID, says it
all; what is left out, and all of it where PO_JAX_COORDINATOR=auto, JAX finds out from the cluster
(SLURM, Open MPI, Kubernetes, Cloud TPU). A SLURM step of several tasks, a TPU slice of several
hosts and several slices are known without being told. Otherwise there is one process, and nothing
is done.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import hashlib
import os
from pathlib import Path
import re
import signal
import sys
import threading
import traceback

COORDINATOR, NUMBER, INDEX = "PO_JAX_COORDINATOR", "PO_JAX_NUM_PROCESSES", "PO_JAX_PROCESS_ID"
WAIT, WATCHDOG = "PO_JAX_WAIT_SECONDS", "PO_JAX_WATCHDOG_MINUTES"

_ADDRESS = re.compile(r".+:\d{1,5}")
_CODE = ("launch", "po_jax", "tasks")

_joined = False
_SAY_AFTER = 5.0  # seconds of waiting for the others
_HEARTBEAT = 60  # seconds without one after which a process counts as dead


def start(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of this command, if there are others.

    Raises:
      ValueError: if a variable is none or out of its range.
    """
    global _joined
    coordinator = environment.get(COORDINATOR)
    number, index = _whole(environment, NUMBER, 1), _whole(environment, INDEX, 0)
    seconds, minutes = _whole(environment, WAIT, 1), _minutes(environment)
    if coordinator is None:
        if number not in (None, 1) or index not in (None, 0):
            raise ValueError(f"expected {COORDINATOR}=HOST:PORT beside {NUMBER} and {INDEX}")
        if not _in_cluster(environment):
            return
    elif coordinator != "auto" and not _ADDRESS.fullmatch(coordinator):
        raise ValueError(f"expected {COORDINATOR} HOST:PORT or auto, got {coordinator!r}")
    if number is not None and index is not None and index >= number:
        raise ValueError(f"expected {INDEX} less than {NUMBER}, {number}, got {index}")

    import jax

    from po_jax import processes

    told = None not in (number, index) and coordinator not in (None, "auto")
    with _waiting(_who(number, index), 300 if seconds is None else seconds):
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator,
            number,
            index,
            cluster_detection_method="deactivate" if told else None,
            initialization_timeout=86400,  # `_waiting` ends it, with a message
            heartbeat_timeout_seconds=_HEARTBEAT,
        )
    _joined = True
    # JAX has caught SIGTERM for itself. Where no run of training notes it, it ends like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes.watch(minutes=minutes)


def alike(settings: Mapping[str, str]) -> None:
    """Holds what the processes of one command are made of against each other, if there are others.

    Args:
      settings: of this process.

    Raises:
      ValueError: naming the first that differs: a setting, the code, a version, or the devices.
    """
    if not _joined:
        return
    import jax
    import jaxlib

    from po_jax import processes

    own = {
        "the code of po_jax": _code(),
        "the version of jax": jax.__version__,
        "the version of jaxlib": jaxlib.__version__,
        "the kind of devices": jax.local_devices()[0].device_kind,
        "the number of devices": jax.local_device_count(),
    }
    processes.alike({**settings, **own})


def failed(message: str) -> None:
    """Tells the other processes, if there are others, why this one ends."""
    if _joined:
        from po_jax import processes

        processes.fail(message)


def run(program: Callable[[], int]) -> int:
    """Runs a program that joins the others by `start`; returns its exit status.

    One process of several returns when all have ended well, and otherwise not at all: it ends here,
    as JAX's own end would wait for the others.
    """
    try:
        status = program()
    except BaseException:
        if not _joined:
            raise
        traceback.print_exc()
        status = 1
    if _joined:
        from po_jax import processes

        processes.leave(status)
    return status


@contextlib.contextmanager
def _waiting(who: str, seconds: int) -> Iterator[None]:
    """Says that this process waits for the others, and ends it if they do not come."""

    def say() -> None:
        print(f"{who}: waiting, {seconds} s at most", file=sys.stderr, flush=True)

    def give_up() -> None:
        print(
            f"error: {who}: they did not come in {seconds} s; is the command started on every "
            f"host, each with its own {INDEX}, and {COORDINATOR} within reach? "
            f"({WAIT} sets the time)",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # JAX waits where no exception reaches

    timers = [threading.Timer(_SAY_AFTER, say), threading.Timer(seconds, give_up)]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def _who(number: int | None, index: int | None) -> str:
    if number is None or index is None:
        return "this process needs the others of its cluster"
    return f"process {index} of {number} needs the other {number - 1}"


def _code() -> str:
    """A hash of the project's own modules."""
    digest = hashlib.blake2b(digest_size=8)
    root = Path(__file__).parent.parent
    for path in sorted(path for part in _CODE for path in (root / part).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether the environment tells of several processes by itself."""
    counts = [
        environment.get(name, "") for name in ("SLURM_STEP_NUM_TASKS", "MEGASCALE_NUM_SLICES")
    ]
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    return any(count.isdigit() and int(count) > 1 for count in counts) or "," in hosts


def _whole(environment: Mapping[str, str], name: str, least: int) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    if not text.isdigit() or int(text) < least:
        raise ValueError(f"expected {name} to be a whole number from {least}, got {text!r}")
    return int(text)


def _minutes(environment: Mapping[str, str]) -> float | None:
    text = environment.get(WATCHDOG)
    try:
        minutes = None if text is None else float(text)
    except ValueError:
        minutes = -1.0
    if minutes is not None and not 0.0 <= minutes < float("inf"):
        raise ValueError(f"expected {WATCHDOG} to be minutes, 0 for none, got {text!r}")
    return minutes
