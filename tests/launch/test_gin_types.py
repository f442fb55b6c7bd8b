"""Which values of gin files fit which annotations."""

from collections.abc import Callable, Mapping, Sequence
import os
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Array, Float
import optax
import pytest

from launch import gin_files
from launch.gin_files import Statement
from launch.gin_types import misfit


def misfit_of(text, annotation):
    """What is wrong with the value of X, which other macros may stand in."""
    statements = gin_files.read([], text.split("; "))
    macros = {statement.name: statement for statement in statements}
    return misfit(macros["X"].value, annotation, macros["X"], macros)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("1", int),
        ("1", float),
        ("True", bool),
        ("None", None),
        ("None", int | None),
        ("runs/x", str),
        ("runs/x", str | os.PathLike),
        ("runs/x", Path | None),
        ("{'inputs': 16}", Mapping[str, int]),
        ("{'inputs': 16}", dict),
        ("(0.0, 1)", tuple[float, float]),
        ("(1, 2, 3)", tuple[int, ...]),
        ("()", tuple[int, ...]),
        ("[1, 2]", Sequence[int]),
        ("(1, 2)", Sequence[int]),
        ("a", Literal["a", "b"]),
        ("0.1", float | Callable[[int], float]),
        ("@schedules.linear()", float),
        ("%gin.REQUIRED", int),
        ("%A; A=%B; B=3", int),
        ("a", Float[Array, ""]),
        ("a", Any | None),
        ("a", "a.name.that.is.not.there"),
    ],
)
def test_what_fits_or_is_not_known(value, annotation):
    assert misfit_of(f"X={value}", annotation) is None


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("'1'", int, "--gin.X='1': expected int, got '1'"),
        ("4.0", int, "--gin.X=4.0: expected int, got 4.0"),
        ("True", int, "--gin.X=True: expected int, got True"),
        ("True", float, "--gin.X=True: expected float, got True"),
        ("1", bool, "--gin.X=1: expected bool, got 1"),
        ("None", str, "--gin.X=None: expected str, got None"),
        ("None", str | os.PathLike, "--gin.X=None: expected str | os.PathLike, got None"),
        ("1e-3x", float | Float[Array, ""], "--gin.X=1e-3x: expected float, got '1e-3x'"),
        (
            "a",
            Callable[[int], int] | None,
            "--gin.X=a: expected a function (@NAME) | None, got 'a'",
        ),
        ("ab", Sequence[str], "--gin.X=ab: expected Sequence[str], got 'ab'"),
        (
            "{'inputs':'16'}",
            Mapping[str, int],
            "--gin.X={'inputs':'16'}: expected Mapping[str, int], got {'inputs': '16'}",
        ),
        (
            "(1.0, 2.0, 3.0)",
            tuple[float, float],
            "expected tuple[float, float], got (1.0, 2.0, 3.0)",
        ),
        ("[1.0, 'a']", list[float] | None, "expected list[float] | None, got [1.0, 'a']"),
        ("dpo", Statement | None, "--gin.X=dpo: expected Statement (@NAME) | None, got 'dpo'"),
        ("5", optax.GradientTransformation, "expected GradientTransformation (@NAME), got 5"),
        ("c", Literal["a", "b"], "expected Literal['a', 'b'], got 'c'"),
        # Who is to blame is who gave the value.
        ("%A; A=b", int, "--gin.A=b: expected int, got 'b'"),
        ("(0.0, %A); A=b", tuple[float, float], "--gin.A=b: expected float, got 'b'"),
        ("[%A]; A=b", list[float] | None, "--gin.A=b: expected float, got 'b'"),
    ],
)
def test_what_does_not_fit_is_told_with_who_gave_it(value, annotation, message):
    assert message in str(misfit_of(f"X={value}", annotation))
