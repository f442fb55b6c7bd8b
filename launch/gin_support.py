"""Command lines in T5X's style, and gin errors that name the nearest right name.

    --gin_file=gin/runs/online.gin --gin_file=gin/algorithms/ipo_md.gin --gin.TRAIN_STEPS=100

Files are looked for in the working directory, then among the project's own. Bindings of the
command line come last and may refer to anything that the files import.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
import difflib
import importlib
import inspect
import logging
from pathlib import Path
import re
import sys
from typing import Any

import gin

from launch import GIN_FOLDER

# Gin has two ways to say that a name is unknown.
_UNKNOWN = r"(?:No configurable matching (?:reference )?'@?|resolve selector )([\w.]+\w)"


class ConfigError(ValueError):
    """A mistake in gin files or bindings, in words for the person who made it."""


def parse(argv: Sequence[str] | None, description: str) -> None:
    """Reads the command line and configures gin by it.

    Args:
      argv: arguments without the program's name; None for those of the process.
      description: what `--help` says of the program.

    Raises:
      ConfigError: on an unknown file, name or parameter, or a value that is still missing.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Any gin binding may follow, as --gin.NAME=VALUE.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gin_file", action="append", default=[], help="repeat in order")
    parser.add_argument("--gin_search_paths", default="", help="comma-separated folders")
    parser.add_argument("--gin_bindings", action="append", default=[], metavar="NAME=VALUE")
    arguments, rest = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    unknown = [argument for argument in rest if not re.match(r"--gin\.[^=]+=", argument)]
    if unknown:
        parser.error(f"unknown arguments {unknown}; bindings are written --gin.NAME=VALUE")
    bindings = [argument.removeprefix("--gin.") for argument in rest]
    folders = [folder for folder in arguments.gin_search_paths.split(",") if folder]
    configure(arguments.gin_file, [*arguments.gin_bindings, *bindings], folders)


def configure(files: Sequence[str], bindings: Sequence[str], folders: Sequence[str] = ()) -> None:
    """Replaces gin's configuration by these files and, over them, these bindings.

    Raises:
      ConfigError: as `parse` does.
    """
    gin.clear_config()
    logging.getLogger().addFilter(_is_news)
    for folder in (*folders, str(GIN_FOLDER.parent), str(GIN_FOLDER)):
        gin.add_config_file_search_path(folder)
    try:
        for file in files:
            _check_file(file, folders)
            gin.parse_config_file(file, print_includes_and_imports=False)
        _check_macros(bindings)
        # Bindings see the imports of the files; gin alone would not let them.
        gin.parse_config("\n".join([*_import_lines(), *bindings]))
        _check_required()
        gin.finalize()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_explain(str(error))) from error


def call(configurable: Callable[..., Any], **arguments: Any) -> Any:
    """Calls what the files configured, with these arguments on top.

    Raises:
      ConfigError: if the files leave out an argument of it, or of something that it makes.
    """
    try:
        return gin.get_configurable(configurable)(**arguments)
    except TypeError as error:
        missing = re.search(r"missing (a|\d+) required .*", str(error))
        where = re.search(r"In call to configurable '(\w+)'", str(error))
        if missing is None or where is None:
            raise
        raise ConfigError(f"{where[1]} is {missing[0]}: does the algorithm fit the run?") from error


def _is_news(record: logging.LogRecord) -> bool:
    """Gin logs an error for each search path that lacks a file, though another has it."""
    return not str(record.msg).startswith("Path not found")


def _check_file(file: str, folders: Sequence[str]) -> None:
    places = [Path(folder) for folder in ("", *folders, GIN_FOLDER.parent, GIN_FOLDER)]
    if not any((place / file).is_file() for place in places):
        own = [f"gin/{path.relative_to(GIN_FOLDER)}" for path in GIN_FOLDER.rglob("*.gin")]
        raise ConfigError(f"no gin file {file!r}.{_nearest(file, own)}")


def _check_macros(bindings: Iterable[str]) -> None:
    """Gin takes a misspelt macro in silence: nothing would ever read it."""
    text = gin.config_str()
    known = set(re.findall(r"^(\w+) =", text, re.M)) | set(re.findall(r"%(\w+)", text))
    for binding in bindings:
        name = binding.partition("=")[0].strip()
        if name.isidentifier() and name not in known:
            raise ConfigError(f"nothing reads the macro {name!r}.{_nearest(name, known)}")


def _check_required() -> None:
    missing = re.findall(r"^(\S+) = *\\?\s*%gin\.REQUIRED", gin.config_str(), re.M)
    if missing:
        wanted = ", ".join(f"--gin.{name}=..." for name in missing)
        raise ConfigError(f"values are missing: give {wanted}")


def _import_lines() -> list[str]:
    text = gin.config_str()
    return re.findall(r"^(?:import|from) .*$", text, re.M)


def _explain(message: str) -> str:
    """Adds the nearest names to gin's message about an unknown one."""
    if unknown := re.search(_UNKNOWN, message):
        return message + _nearest(unknown[1], _configurables())
    if unknown := re.search(r"'([\w.]+)' doesn't have a parameter named '(\w+)'", message):
        target = _configurables().get(unknown[1].split("/")[-1])
        if target is not None:
            return message + _nearest(unknown[2], inspect.signature(target).parameters)
    if unknown := re.search(r"No bindings specified for '(\w+)/", message):
        bound = re.findall(r"^(\w+) =", gin.config_str(), re.M)
        return f"the macro {unknown[1]!r} has no value.{_nearest(unknown[1], bound)}"
    return message


def _configurables() -> dict[str, Any]:
    """Everything the files' imports make configurable, by the name that bindings use."""
    found = {}
    for line in _import_lines():
        module = re.match(r"from (\S+) import (\w+)|import (\S+)", line)
        if module[1] == "__gin__":
            continue
        path = module[3] or f"{module[1]}.{module[2]}"
        name = module[3] or module[2]
        for attribute, value in vars(importlib.import_module(path)).items():
            if callable(value) and getattr(value, "__module__", "") == path:
                found[f"{name}.{attribute}"] = value
    return found


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f" Nearest: {', '.join(near)}." if near else ""
