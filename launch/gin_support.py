"""Runs a command by gin files and bindings, and answers mistakes in a line."""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
import contextlib
import itertools
import logging
import os
import sys
import tempfile
import traceback
from typing import Any

import gin

from launch import command_line, gin_check, gin_files, processes
from launch.gin_files import ConfigError

_CONFIGURES = ("files", "bindings", "folders", "debug")  # arguments of all commands

# What native libraries log before their log can be configured, which no setting stops.
_NATIVE_NEWS = (b"WARNING: All log messages before absl::InitializeLog()", b"I0000 ")


def run(
    program: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
    description: str,
    *,
    runs: Sequence[str] = (),
    options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Configures gin by a command line and runs a program; returns its exit status.

    Args:
      program: called with the arguments. It imports what is heavy itself: `--help` is quick then.
      argv: arguments without the program's name; None for those of the process.
      description: what `--help` says of the program.
      runs: the gin files whose settings `--help` lists if none are given.
      options: adds the program's own arguments to the parser.
    """
    arguments = command_line.read(argv, description, runs, options)
    logging.basicConfig(format="%(levelname)s %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    # Read when JAX is imported: what a run compiles, the next one of its kind finds.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(caches, "po_jax", "compiled"))
    # A random start compiles many programs, none of which takes JAX's own least, a second.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # An installed command finds a user's modules, as -m does.

    def configure_and_run() -> None:
        processes.start()
        with _without_native_news():
            settings = configure(arguments.files, arguments.bindings, arguments.folders)
        for name, value in vars(arguments).items():
            if name not in _CONFIGURES:
                settings[f"--{name}"] = str(value)
        processes.alike({"the command": program.__name__, **settings})
        program(arguments)

    return processes.run(lambda: exit_status(configure_and_run, debug=arguments.debug))


def exit_status(program: Callable[[], None], *, debug: bool = False) -> int:
    """Runs a program; what goes wrong outside it is told in a line.

    Such errors are a ValueError, an operating system's, an import's, and the project's own classes.

    Args:
      program: to be run.
      debug: whether to show the traceback as well.
    """
    try:
        program()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        own = type(error).__module__.partition(".")[0] in ("launch", "po_jax", "tasks")
        if not (own or isinstance(error, ValueError | OSError | ImportError)):
            raise
        if debug:
            traceback.print_exc()
        # Gin adds where the call came from; JAX adds its whole story.
        first, *rest = str(error).strip().splitlines() or [type(error).__name__]
        hint = " (--debug shows more)" if rest and not debug else ""
        print(f"error: {first}{hint}", file=sys.stderr)
        processes.failed(first)
        return 1
    return 0


def parse(argv: Sequence[str] | None, description: str) -> argparse.Namespace:
    """Reads a command line and configures gin by it.

    Raises:
      ConfigError: as `configure` does.
    """
    arguments = command_line.read(argv, description)
    configure(arguments.files, arguments.bindings, arguments.folders)
    return arguments


def configure(
    files: Sequence[str], bindings: Sequence[str], folders: Sequence[str] = ()
) -> dict[str, str]:
    """Replaces gin's configuration by these files and, over them, these bindings.

    Returns what is bound, by name, as gin writes it.

    Args:
      files: looked for in the working directory, the folders and among the project's own.
      bindings: "NAME=VALUE"; they may refer to anything that the files import.
      folders: where else to look for files.

    Raises:
      ConfigError: on an unknown file, name or parameter, a value of the wrong type, or one that
        is still missing.
    """
    statements = gin_files.read(files, bindings, folders)
    gin_check.check(statements)
    imports: defaultdict[str | None, dict[str, None]] = defaultdict(dict)
    for statement in statements:
        if statement.is_import:
            for reader in (statement.file, None):  # The command line sees what the files import.
                imports[reader][statement.text] = None
    gin.clear_config()
    bindings_in_order = (statement for statement in statements if not statement.is_import)
    try:
        for file, group in itertools.groupby(bindings_in_order, key=lambda binding: binding.file):
            gin.parse_config([*imports[file], *(binding.text for binding in group)])
        gin.finalize()
    except Exception as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return {binding.name: repr(binding.value) for binding in statements if not binding.is_import}


def call(configurable: Callable[..., Any], **arguments: Any) -> Any:
    """Calls what the files configured, with these arguments on top.

    Raises:
      ConfigError: if the files leave out an argument of it, or of something that it is given.
    """
    gin_check.check_call(configurable, arguments)
    with contextlib.suppress(ValueError):  # No file mentions it.
        configurable = gin.get_configurable(configurable)
    return configurable(**arguments)


def bound(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that the files bind to a function; none where gin does not know it."""
    try:
        return gin.get_bindings(function)
    except ValueError:
        return {}


@contextlib.contextmanager
def _without_native_news() -> Iterator[None]:
    """Holds back the standard error, then shows it without what TensorFlow says when imported."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            held.seek(0)
            for line in held:
                if not line.startswith(_NATIVE_NEWS):
                    os.write(2, line)
