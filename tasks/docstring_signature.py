"""What stands above a docstring, from the parsed source: the name and the signature.

    add weight of layer
    keras.Layer.add_weight(shape, initializer=None, dtype=None, trainable=True)

The name comes in words first: a small model copies a word that its vocabulary knows, where pieces
of identifiers would each have to be learnt anew.
"""

import ast
import re

SIGNATURE_CHARACTERS = 90
ANNOTATION_CHARACTERS = 16  # a longer one is left out
DEFAULT_CHARACTERS = 12  # a longer one becomes ...

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def words(identifier: str) -> str:
    """The words of a name in snake_case or CamelCase, in lower case."""
    return " ".join(word.lower() for word in _WORDS.findall(identifier))


def heading(node: Definition, module: str, inner: str) -> str:
    """The two lines above a docstring.

    Args:
      node: the definition that the docstring is of.
      module: the dotted name of its module.
      inner: its dotted name within the module, empty for the module itself.
    """
    if isinstance(node, ast.Module):
        return f"{words(module.rpartition('.')[2])}\nmodule {module}"
    owner, _, name = inner.rpartition(".")
    said = words(name) + (f" of {words(owner.rpartition('.')[2])}" if owner else "")
    kind = "class " if isinstance(node, ast.ClassDef) else ""
    return f"{said}\n{kind}{module.partition('.')[0]}.{inner}{signature(node)}"


def signature(node: Definition) -> str:
    """The parameters in brackets, those of its constructor for a class, and what it returns."""
    if isinstance(node, ast.ClassDef):
        constructor = _constructor(node)
        if constructor is None:
            return _shortened([_text(base, ANNOTATION_CHARACTERS) for base in node.bases])
        return _shortened(_parameters(constructor.args))
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    returned = _text(node.returns, ANNOTATION_CHARACTERS)
    return _shortened(_parameters(node.args)) + (f" -> {returned}" if returned else "")


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return child
    return None


def _parameters(arguments: ast.arguments) -> list[str]:
    """Every parameter as in the source, without the object or class that a method is given."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    shown = [_parameter(a, d) for a, d in zip(positional, defaults, strict=True)]
    if positional and positional[0].arg in ("self", "cls"):
        del shown[0]
    if arguments.vararg:
        shown.append(f"*{arguments.vararg.arg}")
    elif arguments.kwonlyargs:
        shown.append("*")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    shown += [_parameter(a, d) for a, d in pairs]
    return shown + ([f"**{arguments.kwarg.arg}"] if arguments.kwarg else [])


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    annotation = _text(argument.annotation, ANNOTATION_CHARACTERS)
    text = argument.arg + (f": {annotation}" if annotation else "")
    return text + (f"={_text(default, DEFAULT_CHARACTERS) or '...'}" if default else "")


def _text(node: ast.expr | None, longest: int) -> str:
    """The source of an expression, or nothing where it is too long or not ASCII."""
    if node is None:
        return ""
    text = ast.unparse(node)
    return text if len(text) <= longest and text.isascii() and text.isprintable() else ""


def _shortened(parts: list[str]) -> str:
    """The parts in brackets, as many as the length allows, and dots for the others."""
    parts = [part for part in parts if part]
    kept = ""
    for part in parts:
        longer = f"{kept}, {part}" if kept else part
        if len(longer) > SIGNATURE_CHARACTERS:
            return f"({kept}, ...)" if kept else "(...)"
        kept = longer
    return f"({kept})"
