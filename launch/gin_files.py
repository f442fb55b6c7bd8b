"""Gin files and bindings of the command line, read as statements: nothing is imported or bound.

A value on the command line needs no quotes of its own. What gin can read (a Python literal, a
container of such, or what begins with @ or %) is what gin takes it for; anything else is a string.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import io
from pathlib import Path
import tokenize
from typing import Any

from gin import config_parser

from launch import GIN_FOLDER
from po_jax.names import nearest


class ConfigError(ValueError):
    """A mistake in gin files or bindings, in a line for the person who made it."""


class RepeatedKeyError(ConfigError):
    """A dictionary with a key twice, of which Python would take the last without a word."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@name`, or `@name()`, with the scopes before it."""

    name: str
    called: bool

    def __repr__(self) -> str:
        return f"@{self.name}{'()' if self.called else ''}"


@dataclasses.dataclass(frozen=True)
class Macro:
    """`%name`: the value of a macro, or a constant of gin's."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclasses.dataclass(frozen=True, eq=False)
class Statement:
    """A binding or an import.

    Attributes:
      parsed: what gin's parser made of it, with `Reference` and `Macro` in the values.
      place: the file and line, or the argument as it was typed.
      file: where it stands; None for the command line.
      comment: what stands behind it on its line.
    """

    parsed: config_parser.BindingStatement | config_parser.ImportStatement
    place: str
    file: str | None = None
    comment: str = ""

    @property
    def is_macro(self) -> bool:
        """Whether this gives a macro its value."""
        return not self.is_import and not self.parsed.arg_name

    @property
    def is_import(self) -> bool:
        """Whether this is an import."""
        return isinstance(self.parsed, config_parser.ImportStatement)

    @property
    def value(self) -> Any:
        """What is bound to `name`."""
        return self.parsed.value

    @property
    def name(self) -> str:
        """What is bound: "TRAIN_STEPS", or "train/settings.batch_stream.split"."""
        scope, selector, parameter, *_ = self.parsed
        return f"{scope}{'/' * bool(scope)}{selector}{'.' * bool(parameter)}{parameter}"

    @property
    def text(self) -> str:
        """The statement in gin's language."""
        if self.is_import:
            return self.parsed.format()
        return f"{self.name} = {self.value!r}"

    def __str__(self) -> str:
        return self.place if self.file is None else f"{self.place}: {self.name}"


def read(
    files: Sequence[str], bindings: Sequence[str], folders: Sequence[str] = ()
) -> list[Statement]:
    """All statements in their order: those of the files, included ones in their places, then these.

    Args:
      files: looked for in the working directory, the folders and among the project's own.
      bindings: of the command line, "NAME=VALUE".
      folders: where else to look for files.

    Raises:
      ConfigError: on a file that is not there, and on what is not gin's language.
    """
    statements = []
    for name in files:
        statements += _of_file(name, f"--gin_file={name}", folders, ())
    for binding in bindings:
        place = f"--gin.{' '.join(binding.split())}"
        statements += [Statement(parsed, place) for parsed in _of_binding(binding, place)]
    return statements


def leaves(value: Any) -> Iterator[Any]:
    """What a value holds that is no container."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


class _Delegate(config_parser.ParserDelegate):
    """Keeps references and macros as they are written."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


class _Parser(config_parser.ConfigParser):
    """Gin's parser, which would let the last of two equal keys win without a word."""

    def _maybe_parse_container(self) -> tuple[bool, Any]:
        outer, self._keys = getattr(self, "_keys", None), []
        try:
            return super()._maybe_parse_container()
        finally:
            self._keys = outer

    def _parse_dict_item(self) -> tuple[Any, Any]:
        key, value = super()._parse_dict_item()
        if key in self._keys:
            raise RepeatedKeyError(f"expected each key once, got {key!r} twice")
        self._keys.append(key)
        return key, value


def _of_file(
    name: str, wanted_by: str, folders: Sequence[str], outer: tuple[Path, ...]
) -> Iterator[Statement]:
    places = [Path(folder) for folder in ("", *folders, GIN_FOLDER.parent, GIN_FOLDER)]
    path = next((place / name for place in places if (place / name).is_file()), None)
    if path is None:
        own = [f"gin/{path.relative_to(GIN_FOLDER)}" for path in GIN_FOLDER.rglob("*.gin")]
        raise ConfigError(f"{wanted_by}: no gin file {name!r}.{nearest(name, own)}")
    if path in outer:
        raise ConfigError(f"{wanted_by}: {name!r} includes itself")
    text = path.read_text(encoding="utf-8")
    comments = _comments(text)
    for parsed in _parse(text, name):
        line = parsed.location.line_num
        place = f"{name}:{line}"
        if isinstance(parsed, config_parser.IncludeStatement):
            yield from _of_file(parsed.filename, place, folders, (*outer, path))
        elif not isinstance(parsed, config_parser.BlockDeclaration):
            yield Statement(parsed, place, name, comments.get(line, ""))


def _of_binding(binding: str, place: str) -> Iterator[Any]:
    name, equals, value = binding.partition("=")
    value = value.strip()
    if equals and not value.startswith(("@", "%")):
        try:
            (_,) = _parse(f"name = {value}", place)
        except RepeatedKeyError:
            raise
        except ValueError:
            binding = f"{name}= {value!r}"
    return _parse(binding, place)


def _parse(text: str, source: str) -> Iterator[Any]:
    try:
        yield from _Parser(text, _Delegate())
    except RepeatedKeyError as error:
        raise RepeatedKeyError(f"{source}: {error}") from error
    except SyntaxError as error:
        raise ConfigError(_mistake(source, error.lineno, error.msg)) from error
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        raise ConfigError(_mistake(source, line, message)) from error


def _mistake(source: str, line: int | None, message: str) -> str:
    place = source if source.startswith("--") else f"{source}:{line}"
    return f"{place}: {message.splitlines()[-1].strip()}"  # What comes before is Python's.


def _comments(text: str) -> dict[int, str]:
    """The comments by their lines; of a file that is cut short, those before its end."""
    comments = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                comments[token.start[0]] = token.string.lstrip("# ")
    except (SyntaxError, tokenize.TokenError):
        pass  # The parser will say where.
    return comments
