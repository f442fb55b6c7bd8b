"""T5X as it is: its own arithmetic promotes dtypes and ranks."""

from absl import logging
import jax
import pytest


@pytest.fixture(autouse=True)
def as_t5x_runs(relaxed):
    """What the rest of the suite forbids, T5X does; and its numbers come from optimised code."""
    logging.set_verbosity(logging.ERROR)
    jax.config.update("jax_disable_most_optimizations", False)
    with relaxed():
        yield
    jax.config.update("jax_disable_most_optimizations", True)
