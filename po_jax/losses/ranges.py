"""The ranges of coefficients. What is traced has no value yet, and is not looked at."""

from po_jax.types import Coefficient


def check_positive(where: str, **coefficients: Coefficient) -> None:
    """Raises ValueError if a coefficient, given by its name, is not above 0."""
    for name, value in coefficients.items():
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"{where}: expected {name} > 0, got {value}")


def check_not_negative(where: str, **coefficients: Coefficient) -> None:
    """Raises ValueError if a coefficient, given by its name, is below 0 or nan."""
    for name, value in coefficients.items():
        if isinstance(value, int | float) and not value >= 0:
            raise ValueError(f"{where}: expected {name} >= 0, got {value}")
