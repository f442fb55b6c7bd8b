"""What gin would find out late, or never: checks of statements before anything is built.

Every name is looked up through the imports of its file, every parameter in the signature of what
it belongs to, and every value against the annotation there, as far as `gin_types` knows it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
import importlib
import inspect
import math
import pkgutil
import sys
import types
from typing import Any

import gin

from launch.gin_files import ConfigError, Macro, Reference, Statement, leaves
from launch.gin_types import misfit
from po_jax.names import nearest

_REQUIRED = Macro("gin.REQUIRED")


def _singleton(constructor: Callable[[], Any]) -> Any:
    """Stands for gin's own, which has no annotation."""


_BUILTINS = types.SimpleNamespace(
    macro=gin.config.macro, singleton=_singleton, constant=gin.config.constant
)


def check(statements: Sequence[Statement]) -> None:
    """Imports what the statements import, and refuses what cannot work.

    Raises:
      ConfigError: on the first mistake, with its place and the nearest right names.
    """
    bindings = [statement for statement in statements if not statement.is_import]
    macros = {binding.name: binding for binding in bindings if binding.is_macro}
    # What needs no import is answered at once.
    _check_that_numbers_are_finite(bindings)
    _check_that_macros_are_read(bindings)
    _check_required(macros.values())
    targets = _targets(statements)
    in_force = {_key(binding, targets): binding for binding in bindings}.values()
    _check_that_macros_have_values(in_force, macros)
    _check_required(in_force)
    for binding in in_force:
        if binding in targets:
            _check_type(binding, targets[binding], macros)


def check_call(configurable: Callable[..., Any], given: Collection[str]) -> None:
    """Refuses a call for which gin's configuration has too few arguments.

    Args:
      configurable: what is to be called; what its arguments call in their turn is checked as well.
      given: names of the arguments that the caller gives.

    Raises:
      ConfigError: if an argument has neither a value nor a default.
    """
    try:
        bound = gin.get_bindings(configurable, resolve_references=False)
    except ValueError:  # No file mentions it.
        bound = {}
    own = {name: value for name, value in bound.items() if name not in given}
    missing = [
        name
        for name, parameter in (_signature(configurable) or {}).items()
        if name not in given
        and name not in own
        and parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if missing:
        name = f"{configurable.__module__.rpartition('.')[2]}.{configurable.__qualname__}"
        raise ConfigError(f"nothing gives {name} its {', '.join(missing)}: is a gin file left out?")
    for reference in gin.config.iterate_references(own):
        if reference.evaluate:
            with gin.config_scope(reference.scopes or gin.current_scope()):
                check_call(reference.configurable.wrapped, ())


def _targets(statements: Iterable[Statement]) -> dict[Statement, Callable[..., Any]]:
    """What each binding of a parameter is for. All names are looked up on the way."""
    names: defaultdict[str | None, dict[str, Any]] = defaultdict(dict)
    targets = {}
    for statement in statements:
        visible = names[statement.file]
        if statement.is_import:
            imported = _imported(statement)
            visible.update(imported)
            names[None].update(imported)  # The command line sees what any of the files imports.
        elif "gin" in visible:  # Without dynamic registration, only gin knows the names.
            for leaf in leaves(statement.value):
                if isinstance(leaf, Reference):
                    _look_up(leaf.name.rpartition("/")[2], visible, statement)
            if not statement.is_macro:
                target = _look_up(statement.parsed.selector, visible, statement)
                _check_parameter(target, statement)
                targets[statement] = target
    return targets


def _key(binding: Statement, targets: Mapping[Statement, Callable[..., Any]]) -> tuple[Any, ...]:
    """The same for two bindings of one thing, by whatever names their files know it."""
    scope, selector, parameter, *_ = binding.parsed
    return scope, id(targets[binding]) if binding in targets else selector, parameter


def _imported(statement: Statement) -> dict[str, Any]:
    """What an import adds to the names of its file."""
    parsed = statement.parsed
    if parsed.module == "__gin__.dynamic_registration":
        return {"gin": _BUILTINS}
    try:
        module = importlib.import_module(parsed.module)
    except Exception as error:  # Whatever a user's module does when it is imported.
        near = nearest(parsed.module, _siblings(parsed.module))
        raise ConfigError(
            f"{statement.place}: {parsed.module!r} cannot be imported: {error}.{near}"
        ) from error
    whole = parsed.is_from or parsed.alias
    return {parsed.bound_name(): module if whole else sys.modules[parsed.bound_name()]}


def _siblings(module: str) -> list[str]:
    parent = sys.modules.get(module.rpartition(".")[0])
    found = pkgutil.iter_modules(getattr(parent, "__path__", ()))
    return [f"{parent.__name__}.{sibling.name}" for sibling in found]


def _look_up(selector: str, names: Mapping[str, Any], statement: Statement) -> Callable[..., Any]:
    first, *rest = selector.split(".")
    found = names.get(first)
    for part in rest:
        found = getattr(found, part, None)
    if callable(found):
        return found
    choices = [
        f"{name}.{attribute}"
        for name, module in names.items()
        for attribute, value in vars(module).items()
        if callable(value)
        and (getattr(value, "__module__", None) or "").startswith(getattr(module, "__name__", ""))
    ]
    wrong = f"nothing is named {selector!r}" if first in names else f"no file imports {first!r}"
    raise ConfigError(f"{statement.place}: {wrong}.{nearest(selector, choices)}")


def _signature(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The parameters by their names, with annotations as types; None if nobody can say."""
    for evaluate in (True, False):
        try:
            return inspect.signature(target, eval_str=evaluate).parameters
        except Exception:  # An annotation may be any expression, and builtins have no signature.
            continue
    return None


def _check_parameter(target: Callable[..., Any], statement: Statement) -> None:
    parameters = _signature(target)
    name = statement.parsed.arg_name
    if parameters is None or name in parameters:
        return
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        selector = statement.parsed.selector
        near = nearest(name, parameters)
        raise ConfigError(f"{statement.place}: {selector} has no parameter {name!r}.{near}")


def _check_type(
    binding: Statement, target: Callable[..., Any], macros: Mapping[str, Statement]
) -> None:
    parameter = (_signature(target) or {}).get(binding.parsed.arg_name)
    if parameter is not None:
        wrong = misfit(binding.value, parameter.annotation, binding, macros)
        if wrong is not None:
            use = "" if wrong.statement is binding else f" (for {binding.name}, {binding.place})"
            raise ConfigError(f"{wrong}{use}")


def _check_required(bindings: Iterable[Statement]) -> None:
    missing = [binding for binding in bindings if _REQUIRED in leaves(binding.value)]
    if missing:
        wanted = ", ".join(f"--gin.{binding.name}=... ({binding.place})" for binding in missing)
        raise ConfigError(f"values are missing: give {wanted}")


def _check_that_numbers_are_finite(bindings: Iterable[Statement]) -> None:
    for binding in bindings:
        for leaf in leaves(binding.value):
            if isinstance(leaf, float) and not math.isfinite(leaf):
                raise ConfigError(f"{binding}: expected a finite number, got {leaf}")


def _check_that_macros_are_read(bindings: Sequence[Statement]) -> None:
    """Gin takes a misspelt macro in silence: nothing would ever read it."""
    known = {name for binding in bindings for name in _macros_in(binding)}
    known |= {binding.name for binding in bindings if binding.is_macro and binding.file}
    for binding in bindings:
        if binding.is_macro and binding.name not in known:
            near = nearest(binding.name, known)
            raise ConfigError(f"{binding.place}: nothing reads the macro {binding.name!r}.{near}")


def _check_that_macros_have_values(
    bindings: Iterable[Statement], macros: Mapping[str, Statement]
) -> None:
    for binding in bindings:
        within = _macros_in(binding)
        for name in within:  # Grows by what those that are read read themselves.
            if name in macros:
                within += [inner for inner in _macros_in(macros[name]) if inner not in within]
            elif gin.config.ParserDelegate().macro(name).selector != "gin.constant":
                near = nearest(name, macros)
                raise ConfigError(f"{binding}: the macro {name!r} has no value.{near}")
        if binding.is_macro and binding.name in within:
            raise ConfigError(f"{binding}: the macro {binding.name!r} refers to itself")


def _macros_in(binding: Statement) -> list[str]:
    return [leaf.name for leaf in leaves(binding.value) if isinstance(leaf, Macro)]
