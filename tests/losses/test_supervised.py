"""Supervised losses against T5X's numbers, finite differences and one-hot arithmetic."""

import json

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from po_jax.losses.supervised import binary_cross_entropy, cross_entropy


def test_cross_entropy_agrees_with_t5x(golden):
    """Loss, z term and gradient norm of `compute_weighted_cross_entropy`, all 24 settings."""
    inputs = np.load(golden / "losses_inputs.npz")
    logits, targets, weights = (jnp.asarray(inputs[k]) for k in ("logits", "targets", "weights"))
    settings = json.loads((golden / "losses.json").read_text())
    assert len(settings) == 24
    for setting in settings:
        weight = weights if setting["weighted"] else jnp.ones_like(weights)
        scale = setting["loss_normalizing_factor"] or 1.0

        def total(logits, weight=weight, scale=scale, setting=setting):
            loss, z_term = cross_entropy(
                logits,
                targets,
                label_smoothing=setting["label_smoothing"],
                z_loss=setting["z_loss"],
            )
            return jnp.sum(weight * loss) / scale, jnp.sum(weight * z_term) / scale

        (loss, z_term), gradient = jax.value_and_grad(total, has_aux=True)(logits)
        np.testing.assert_allclose(loss, setting["loss"], rtol=1e-5, err_msg=str(setting))
        np.testing.assert_allclose(z_term, setting["z"], rtol=1e-5)
        np.testing.assert_allclose(jnp.linalg.norm(gradient), setting["grad_norm"], rtol=1e-5)
        np.testing.assert_allclose(gradient[0, 0, 0], setting["grad_000"], rtol=1e-4, atol=1e-7)


def logits_and_targets():
    key_logits, key_targets = jax.random.split(jax.random.key(0))
    logits = 2 * jax.random.normal(key_logits, (2, 3, 7))
    return logits, jax.random.randint(key_targets, (2, 3), 0, 7)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_cross_entropy_is_a_divergence_from_the_smoothed_target(label_smoothing):
    logits, targets = logits_and_targets()
    off = label_smoothing / 6
    smoothed = np.where(np.eye(7)[targets] > 0, 1 - label_smoothing, off)
    log_smoothed = np.log(np.where(smoothed > 0, smoothed, 1.0))
    expected = np.sum(smoothed * (log_smoothed - jax.nn.log_softmax(logits)), axis=-1)
    loss, z_term = cross_entropy(logits, targets, label_smoothing=label_smoothing)
    np.testing.assert_allclose(loss, expected, atol=1e-5)
    np.testing.assert_array_equal(z_term, 0.0)


def test_cross_entropy_gradient_agrees_with_finite_differences():
    logits, targets = logits_and_targets()
    check_grads(
        lambda x: cross_entropy(jnp.asarray(x), targets, label_smoothing=0.2, z_loss=0.01)[0],
        (logits,),
        order=1,
        modes=["rev"],
        atol=1e-2,
        rtol=1e-2,
    )


def test_cross_entropy_coefficients_out_of_range_are_refused():
    logits, targets = logits_and_targets()
    with pytest.raises(ValueError, match="0 <= label_smoothing < 1, got 1.0"):
        cross_entropy(logits, targets, label_smoothing=1.0)
    with pytest.raises(ValueError, match="z_loss >= 0, got -1.0"):
        cross_entropy(logits, targets, z_loss=-1.0)


def test_binary_cross_entropy_has_its_closed_form_and_slope():
    logit = jnp.asarray([-1.3, 0.0, 0.4, 2.0])
    preference = jnp.asarray([0.0, 0.5, 0.7, 1.0])
    probability = jax.nn.sigmoid(logit)
    np.testing.assert_allclose(
        binary_cross_entropy(logit, preference),
        -preference * jnp.log(probability) - (1 - preference) * jnp.log(1 - probability),
        rtol=1e-5,
    )
    slope = jax.grad(lambda z: jnp.sum(binary_cross_entropy(z, preference)))(logit)
    np.testing.assert_allclose(slope, probability - preference, atol=1e-6)


def test_binary_cross_entropy_is_finite_at_enormous_logits():
    logit = jnp.asarray([1e4, -1e4, 1e4])
    loss = binary_cross_entropy(logit, jnp.asarray([1.0, 0.0, 0.5]))
    np.testing.assert_allclose(loss, [0.0, 0.0, 5e3])
