"""Metrics: merging parts gives the metric of the whole."""

import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.metrics import Mean, Sum, agreement, merge
from tasks.metrics import preference_accuracy

VALUES = jnp.asarray([1.0, 2.0, 4.0, 8.0, 16.0])
WEIGHTS = jnp.asarray([True, False, True, True, False])


def metrics(values, weights):
    return {"mean": Mean.of(values), "weighted": Mean.of(values, weights), "sum": Sum(values.sum())}


def test_merged_metrics_are_those_of_all_examples():
    merged = merge(metrics(VALUES[:2], WEIGHTS[:2]), metrics(VALUES[2:], WEIGHTS[2:]))
    values = {name: metric.compute() for name, metric in merged.items()}
    assert values == {"mean": 31 / 5, "weighted": 13 / 3, "sum": 31}


def test_the_mean_of_nothing_is_nan():
    assert np.isnan(Mean.of(VALUES, jnp.zeros(5)).compute())


def test_a_margin_of_zero_is_half_an_agreement_whatever_the_label():
    margin = jnp.asarray([2.0, -2.0, 0.0, 0.0, 3.0, 0.0, -0.0])
    label = jnp.asarray([0.9, 0.9, 0.9, 0.1, 0.5, 0.5, 0.0])
    found = agreement(margin, label)
    assert found.compute() == (1 + 0 + 0.5 + 0.5 + 0.5) / 5
    tasks = preference_accuracy(label, margin)  # as the tasks' metric counts
    assert found.compute() == pytest.approx(tasks["preference_accuracy"])
    assert found.count == tasks["comparisons"] == 5
    assert np.isnan(agreement(margin, jnp.full(7, 0.5)).compute())  # absent from records


def test_they_are_what_t5x_takes_for_metrics():
    from clu import metrics

    assert isinstance(Mean.of(VALUES), metrics.Metric)
    assert Mean.of(VALUES).compute_value().value == 31 / 5
    assert Sum(jnp.float32(3.0)).compute_value().value == 3.0
