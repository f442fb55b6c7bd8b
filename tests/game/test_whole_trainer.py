"""The whole trainer - real loop, real sampler, real T5 - ends at the exact answer.

One algorithm here; `tests/benchmarks/exact_trainer.py` runs nine.
"""

import jax
import pytest

from po_jax.game.equilibrium import make_game, total_variation
from tests.game import exact_run


@pytest.mark.slow
def test_ipo_md_on_a_cyclic_game_ends_at_its_exact_stationary_point(tmp_path, relaxed):
    # Relaxed for optax's Adam, which mixes dtypes.
    with jax.enable_x64(False), relaxed():
        outcome = exact_run.train(
            exact_run.ALGORITHMS["IPO-MD, beta 0.5"],
            exact_run.fit_reference(tmp_path / "reference"),
            tmp_path / "run",
            steps=400,
            batch_size=128,
            learning_rate=3e-3,
        )
    assert outcome.start > 0.2
    assert outcome.end < 0.02


def test_the_answers_lie_further_apart_than_that_tolerance():
    # So a trainer that mixed with another beta, or not at all, would not pass.
    for reference, preference in zip(exact_run.wanted_reference(), exact_run.CYCLIC, strict=True):
        game = make_game(preference, reference, exact_run.TAU)
        answers = [exact_run.against(beta)(game) for beta in (0.0, 0.5, 1.0)]
        assert total_variation(answers[0], answers[1]) > 0.05
        assert total_variation(answers[1], answers[2]) > 0.05
