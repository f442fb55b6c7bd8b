"""Held-out evaluations of supervised models and judges, against plain counting."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.data import layouts
from po_jax.data.corpus import BatchStream
from po_jax.judges import PreferenceModel, RewardModel
from po_jax.models import SupervisedModel
from po_jax.partitioning import make_partitioner
from po_jax.training.held_out import JudgeEvaluation, SupervisedEvaluation
from po_jax.training.run import Run
from po_jax.training.state import TrainState
from tests.training import small_run

PARAMS = jax.jit(small_run.MODEL.init)(jax.random.key(1))
STATE = TrainState(step=jnp.int32(0), params=PARAMS, optimizer_state=None)
RUN = Run(
    language_model=small_run.MODEL,
    load_reference=lambda: None,
    partitioner=make_partitioner(devices=jax.devices()[:1]),
    key=jax.random.key(4),
    directory=Path(),
)


def whole(stream):
    """All examples as one batch."""
    (batch,) = stream.one_pass()
    return batch


def test_the_rows_that_fill_the_last_batch_do_not_count():
    corpus = small_run.corpus()
    corpus = type(corpus)(
        tokens={"inputs": corpus.tokens["inputs"], "targets": corpus.tokens["completion_1"]},
        texts={},
        sizes=corpus.sizes,
        rates=corpus.rates,
    )
    model = SupervisedModel(language_model=small_run.MODEL)
    layout = layouts.Supervised(small_run.LENGTHS)
    evaluation = SupervisedEvaluation(RUN, model=model, examples=BatchStream(corpus, layout, 8))
    found, text = evaluation(STATE)
    everything = jax.tree.map(jnp.asarray, whole(BatchStream(corpus, layout, 21)).arrays)
    _, expected = model.eval_fn(PARAMS, everything)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(found[name], expected[name].compute(), rtol=1e-5)
    assert text == ""


def test_agreement_with_labels_is_counted_on_every_pair_once():
    comparisons = whole(small_run.comparisons(21)).arrays
    preference = comparisons["preference"]
    for model in (
        PreferenceModel(language_model=small_run.MODEL, template=small_run.TEMPLATE),
        RewardModel(
            language_model=small_run.MODEL,
            template=type(small_run.TEMPLATE)(pieces=((20,), (21,)), verdicts=(18, 19)),
        ),
    ):
        evaluation = JudgeEvaluation(RUN, model=model, comparisons=small_run.comparisons())
        found, _ = evaluation(STATE)
        score = np.asarray(model.score_batch(PARAMS, comparisons))
        first = score > 0.0
        assert found["comparisons"] == 21
        np.testing.assert_allclose(found["accuracy"], np.mean(first == (preference > 0.5)))


@pytest.mark.parametrize("batches", [0, -1])
def test_an_evaluation_asks_about_something(batches):
    model = SupervisedModel(language_model=small_run.MODEL)
    with pytest.raises(ValueError, match=f"expected max_batches of 1 or more, got {batches}"):
        SupervisedEvaluation(
            RUN, model=model, examples=small_run.comparisons(8), max_batches=batches
        )
