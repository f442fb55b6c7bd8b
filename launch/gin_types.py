"""Whether what gin files say fits an annotation.

Known are None, bool, int, float, str, paths, callables, literals, the project's own classes and
optax's, and unions, sequences, tuples and mappings of such. What is annotated otherwise is not
checked; nor are references, which make it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import inspect
import os
from pathlib import Path
import types
import typing
from typing import Any, NamedTuple

from launch.gin_files import Macro, Reference, Statement

# An int does for a float, and a path is written as a string. Gin has no literal of a function.
_SCALARS: Mapping[Any, tuple[type, ...]] = {
    None: (types.NoneType,),
    types.NoneType: (types.NoneType,),
    bool: (bool,),
    int: (int,),
    float: (float, int),
    str: (str,),
    Path: (str,),
    os.PathLike: (str,),
    Callable: (),
}
_CONTAINERS: Mapping[Any, tuple[type, ...]] = {
    list: (list,),
    tuple: (tuple,),
    Sequence: (list, tuple),
    dict: (dict,),
    Mapping: (dict,),
}
_MAKERS = ("po_jax", "launch", "tasks", "optax")  # of classes that no literal is
_UNIONS = (typing.Union, types.UnionType)
_ANYTHING = (Any, object)


class Misfit(NamedTuple):
    """A value, the statement that gives it, and the annotation that it does not fit."""

    statement: Statement
    annotation: Any
    value: Any

    def __str__(self) -> str:
        return f"{self.statement}: expected {_in_words(self.annotation)}, got {self.value!r}"


def misfit(
    value: Any, annotation: Any, statement: Statement, macros: Mapping[str, Statement]
) -> Misfit | None:
    """What does not fit; if it came by a macro, then the macro's own statement.

    Args:
      value: of a parameter, as it is written.
      annotation: of the parameter.
      statement: where the value is written.
      macros: the statement of each macro, none of which refers to itself.
    """
    if isinstance(value, Macro):
        given = macros.get(value.name)
        return given and misfit(given.parsed.value, annotation, given, macros)
    if isinstance(value, Reference):
        return None
    kind, arguments = _kind(annotation), typing.get_args(annotation)
    whole = Misfit(statement, annotation, value)
    if kind in _UNIONS:
        known = [argument for argument in arguments if _is_known(argument)]
        inner = [misfit(value, argument, statement, macros) for argument in known]
        return None if None in inner or not inner else _blamed(inner, whole)
    if _is_made(kind):
        return whole
    if kind is typing.Literal:
        return None if value in arguments else whole
    if kind in _SCALARS:
        fits = isinstance(value, _SCALARS[kind]) and (kind is bool or not isinstance(value, bool))
        return None if fits else whole
    if kind in _CONTAINERS:
        if not isinstance(value, _CONTAINERS[kind]):
            return whole
        if kind is tuple and arguments and ... not in arguments and len(value) != len(arguments):
            return whole
        inner = [misfit(v, a, statement, macros) for v, a in _items(value, arguments)]
        return _blamed(inner, whole) if any(inner) else None
    return None


def _blamed(inner: Sequence[Misfit | None], whole: Misfit) -> Misfit:
    """The misfit that a macro brought, if one did; else that of the whole value."""
    return next((m for m in inner if m and m.statement is not whole.statement), whole)


def _items(value: Any, arguments: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """What a container holds, each with its annotation; nothing if there is none."""
    if not arguments:
        return
    if isinstance(value, dict):
        for item in value.items():
            yield from zip(item, arguments, strict=True)
    elif ... in arguments or len(arguments) < len(value):
        yield from ((item, arguments[0]) for item in value)
    else:
        yield from zip(value, arguments, strict=False)


def _kind(annotation: Any) -> Any:
    return typing.get_origin(annotation) or annotation


def _is_made(kind: Any) -> bool:
    """Whether only a reference can give it."""
    return isinstance(kind, type) and kind.__module__.partition(".")[0] in _MAKERS


def _is_known(annotation: Any) -> bool:
    kind = _kind(annotation)
    known = (*_SCALARS, *_CONTAINERS, *_UNIONS, *_ANYTHING, typing.Literal)
    return kind in known or _is_made(kind)


def _in_words(annotation: Any) -> str:
    """An annotation for people: of a union, what a gin file can say."""
    if _kind(annotation) in _UNIONS:
        known = filter(_is_known, typing.get_args(annotation))
        return " | ".join(dict.fromkeys(map(_in_words, known)))
    if _kind(annotation) is Callable:
        return "a function (@NAME)"
    if _is_made(annotation):
        return f"{annotation.__name__} (@NAME)"
    if annotation is types.NoneType:
        return "None"
    return inspect.formatannotation(annotation).replace("collections.abc.", "")
