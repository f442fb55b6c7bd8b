"""Command lines in T5X's style, read before anything heavy is imported.

--gin_file=gin/runs/online.gin --gin_file=gin/algorithms/ipo_md.gin --gin.TRAIN_STEPS=100
"""

import argparse
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
import sys

from launch import gin_files

_VALUES = """\
A VALUE needs no quotes of its own: a Python literal, a list, tuple or dictionary, and what begins
with @ or % is taken as gin takes it; anything else is a string. The last VALUE given holds."""


def read(
    argv: Sequence[str] | None,
    description: str,
    runs: Sequence[str] = (),
    options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> argparse.Namespace:
    """Reads a command line, and ends the process after `--help`, `--version` or a mistake.

    Args:
      argv: arguments without the program's name; None for those of the process.
      description: what `--help` says of the program.
      runs: the gin files whose settings `--help` lists if none are given.
      options: adds the program's own arguments.

    Returns:
      The program's own arguments, with files, bindings, folders and debug.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(description)
    if options is not None:
        options(parser)
    if not argv:
        print(f"{parser.format_usage().strip()} (--help lists all)", file=sys.stderr)
        sys.exit(2)
    # Asked for help, nobody need say what a program's own options require.
    arguments, rest = _parser(description).parse_known_args(argv)
    if not arguments.help:
        arguments, rest = parser.parse_known_args(argv)
        require_bindings(parser, rest)
    arguments.bindings += [text.removeprefix("--gin.") for text in rest if _is_binding(text)]
    arguments.folders = [folder for folder in arguments.folders.split(",") if folder]
    if arguments.help:
        parser.epilog = _settings(arguments.files or runs, arguments)
        parser.print_help()
        sys.exit(0)
    if not arguments.files:
        parser.error("expected --gin_file=FILE, got none")
    return arguments


def require_bindings(parser: argparse.ArgumentParser, rest: Sequence[str]) -> None:
    """Ends the process where an argument that the parser does not know is no binding of gin's."""
    unknown = [text for text in rest if not _is_binding(text)]
    if unknown:
        parser.error(f"unknown arguments {unknown}; bindings are written --gin.NAME=VALUE")


def _is_binding(text: str) -> bool:
    return text.startswith("--gin.") and "=" in text


def overwrite(parser: argparse.ArgumentParser) -> None:
    """The option of what writes results."""
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result")


def _parser(description: str) -> argparse.ArgumentParser:
    started = Path(sys.argv[0])
    program = f"python -m launch.{started.stem}" if started.suffix == ".py" else started.name
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} --gin_file=FILE [--gin_file=FILE ...] [--gin.NAME=VALUE ...]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,  # What can be set is known when the files are.
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--gin_file", dest="files", action="append", default=[], metavar="FILE", help="repeatable")
    add("--gin_bindings", dest="bindings", action="append", default=[], metavar="NAME=VALUE")
    add("--gin_search_paths", dest="folders", default="", metavar="FOLDER,FOLDER")
    add("--debug", action="store_true", help="show the traceback of an error")
    add("--version", action="version", version=_version(), help="show the version and exit")
    add("--help", "-h", action="store_true", help="show this and exit")
    return parser


def _version() -> str:
    try:
        return f"po_jax {metadata.version('po_jax')}"
    except metadata.PackageNotFoundError:
        return "po_jax, not installed"


def _settings(files: Sequence[str], arguments: argparse.Namespace) -> str:
    """The macros of gin files and bindings, with their values and what is said of them."""
    try:
        statements = gin_files.read(files, arguments.bindings, arguments.folders)
    except gin_files.ConfigError as error:
        return f"error: {error}"
    values, meanings = {}, {}
    for statement in statements:
        if statement.is_macro:
            values[statement.name] = repr(statement.value)
            meanings[statement.name] = statement.comment or meanings.get(statement.name, "")
    width = max(map(len, values), default=0)
    lines = [f"settings (--gin.NAME=VALUE) of {' '.join(files)}:" if files else ""]
    for name, value in values.items():
        value = "must be given" if value == "%gin.REQUIRED" else value
        meaning = f"  # {meanings[name]}" if meanings[name] else ""
        lines.append(f"  {name:{width}}  {value}{meaning}")
    return "\n".join([*lines, "", _VALUES])
