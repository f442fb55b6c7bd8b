"""Pairwise losses against their closed forms, finite differences and the papers' identities."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from po_jax.losses import pairwise

MARGIN = jnp.asarray([-2.5, -0.3, 0.0, 0.4, 3.1])
PREFERENCE = jnp.asarray([0.0, 0.3, 0.5, 1.0, 0.9])

# f(z), f'(z) written with `math` alone.
CLOSED_FORMS = {
    "logistic": (lambda z: math.log(1 + math.exp(-z)), lambda z: -1 / (1 + math.exp(z))),
    "hinge": (lambda z: max(0, 1 - z), lambda z: -float(z < 1)),
    "squared": (lambda z: (1 - z) ** 2, lambda z: -2 * (1 - z)),
    "exponential": (lambda z: math.exp(-z), lambda z: -math.exp(-z)),
    "truncated_quadratic": (lambda z: max(0, 1 - z) ** 2, lambda z: -2 * max(0, 1 - z)),
    "savage": (
        lambda z: (1 + math.exp(z)) ** -2,
        lambda z: -2 * math.exp(z) * (1 + math.exp(z)) ** -3,
    ),
}

# f'(0) and f''(0), by hand.
DERIVATIVES_AT_ZERO = {
    "logistic": (-1 / 2, 1 / 4),
    "hinge": (-1, 0),
    "squared": (-2, 2),
    "exponential": (-1, 1),
    "truncated_quadratic": (-2, 2),
    "savage": (-1 / 4, 1 / 8),
}

every_f = pytest.mark.parametrize("name", pairwise.CONVEX_FUNCTIONS)


def slope(loss, margin, preference):
    return jax.grad(lambda h: jnp.sum(loss(h, preference)))(margin)


def test_the_table_holds_the_six_functions():
    assert set(pairwise.CONVEX_FUNCTIONS) == set(CLOSED_FORMS)


@every_f
def test_f_and_its_derivative_have_their_closed_form(name):
    value, derivative = CLOSED_FORMS[name]
    points = [-3.0, -0.7, 0.0, 0.6, 2.2]
    f = pairwise.CONVEX_FUNCTIONS[name]
    np.testing.assert_allclose(f(jnp.asarray(points)), [value(z) for z in points], rtol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(f))(jnp.asarray(points)), [derivative(z) for z in points], rtol=1e-5
    )


@every_f
def test_gpo_is_the_expectation_over_the_label(name):
    tau = 0.7
    value, derivative = CLOSED_FORMS[name]
    loss = functools.partial(pairwise.gpo, f=pairwise.CONVEX_FUNCTIONS[name], tau=tau)
    rows = list(zip(MARGIN.tolist(), PREFERENCE.tolist(), strict=True))
    expected = [p * value(tau * h) + (1 - p) * value(-tau * h) for h, p in rows]
    expected_slope = [
        tau * (p * derivative(tau * h) - (1 - p) * derivative(-tau * h)) for h, p in rows
    ]
    np.testing.assert_allclose(loss(MARGIN, PREFERENCE), expected, rtol=1e-5)
    np.testing.assert_allclose(
        slope(loss, MARGIN, PREFERENCE), expected_slope, rtol=1e-5, atol=1e-7
    )


@every_f
def test_gpo_expands_to_second_order_around_a_zero_margin(name):
    """Slope tau (2p - 1) f'(0), curvature tau^2 f''(0): regularisation strength |f''/f'|(0)."""
    tau = 0.7
    first, second = DERIVATIVES_AT_ZERO[name]
    f = pairwise.CONVEX_FUNCTIONS[name]
    loss = lambda h, p: pairwise.gpo(h[None], p[None], f=f, tau=tau)[0]  # noqa: E731
    zero = jnp.zeros_like(PREFERENCE)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(loss))(zero, PREFERENCE), tau * (2 * PREFERENCE - 1) * first, atol=1e-6
    )
    np.testing.assert_allclose(
        jax.vmap(jax.grad(jax.grad(loss)))(zero, PREFERENCE), tau**2 * second, atol=1e-6
    )


LOSSES = {
    name: functools.partial(pairwise.gpo, f=f) for name, f in pairwise.CONVEX_FUNCTIONS.items()
} | {"ipo": pairwise.ipo, "dpo": pairwise.dpo, "slic": pairwise.slic}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every_loss
def test_gradients_agree_with_finite_differences(loss):
    check_grads(
        lambda h: loss(jnp.asarray(h), PREFERENCE, tau=0.6),
        (MARGIN,),
        order=1,
        modes=["rev"],
        atol=2e-2,
        rtol=2e-2,
        eps=1e-2,
    )


@every_loss
def test_exchanging_the_completions_changes_nothing(loss):
    np.testing.assert_allclose(
        loss(MARGIN, PREFERENCE, tau=0.6), loss(-MARGIN, 1 - PREFERENCE, tau=0.6), rtol=1e-6
    )


@every_loss
def test_hard_labels_stay_finite_at_enormous_margins(loss):
    """The right answer by 1e4 nats: f overflows only in the term that hard labels drop."""
    margin = jnp.asarray([1e4, -1e4])
    preference = jnp.asarray([1.0, 0.0])
    value = loss(margin, preference, tau=1.0)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(slope(functools.partial(loss, tau=1.0), margin, preference)))
    np.testing.assert_allclose(value, loss(-margin, 1 - preference, tau=1.0))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "exponential"])
def test_all_but_the_exponential_stay_finite_with_any_label(name):
    loss = LOSSES[name]
    margin, preference = jnp.meshgrid(jnp.asarray([-1e4, 1e4]), jnp.asarray([0.0, 0.3, 1.0]))
    arguments = margin.ravel(), preference.ravel()
    assert np.all(np.isfinite(loss(*arguments, tau=1.0)))
    assert np.all(np.isfinite(slope(functools.partial(loss, tau=1.0), *arguments)))


@every_loss
@pytest.mark.parametrize("tau", [0.0, -0.1, 0, math.nan])
def test_tau_must_be_positive(loss, tau):
    with pytest.raises(ValueError, match="expected tau > 0"):
        loss(MARGIN, PREFERENCE, tau=tau)


@every_loss
def test_tau_may_be_traced(loss):
    np.testing.assert_allclose(
        jax.jit(lambda tau: loss(MARGIN, PREFERENCE, tau=tau))(0.6),
        loss(MARGIN, PREFERENCE, tau=0.6),
        rtol=1e-5,
    )


def test_ipo_is_its_completed_square_plus_a_constant():
    tau = 0.25
    square = (MARGIN - (2 * PREFERENCE - 1) / (2 * tau)) ** 2
    constant = (1 - (2 * PREFERENCE - 1) ** 2) / (4 * tau**2)
    np.testing.assert_allclose(
        pairwise.ipo(MARGIN, PREFERENCE, tau=tau), square + constant, rtol=1e-5
    )


def test_squared_gpo_is_a_scaled_ipo():
    """GPO-squared with coefficient b is b^2 times IPO with tau = b / 2."""
    b = 0.3
    np.testing.assert_allclose(
        pairwise.gpo(MARGIN, PREFERENCE, f=pairwise.squared, tau=b),
        b**2 * pairwise.ipo(MARGIN, PREFERENCE, tau=b / 2),
        rtol=1e-5,
    )


def test_dpo_of_a_hard_label_is_the_papers():
    np.testing.assert_allclose(
        pairwise.dpo(MARGIN, jnp.ones_like(MARGIN), tau=0.1),
        -jnp.log(jax.nn.sigmoid(0.1 * MARGIN)),
        rtol=1e-5,
    )


def assert_differentiated(loss, policy):
    """The gradient agrees with finite differences."""
    check_grads(
        lambda x: loss(jnp.asarray(x)),
        (policy,),
        order=1,
        modes=["rev"],
        atol=1e-2,
        rtol=1e-2,
        eps=1e-2,
    )


class TestSimPO:
    # Means over tokens: -6 / 3 and -8 / 4, -2 / 2 and -9 / 3, -3.0 and -0.5.
    policy = jnp.asarray([[-2.0, -2.0], [-1.0, -3.0], [-3.0, -0.5]])

    def test_hard_labels_give_the_papers_equation(self):
        """With beta 2 and gamma 1: z = 2 (difference) - 1, and -log sigma(z) = log(1 + e^-z)."""
        preference = jnp.asarray([1.0, 1.0, 0.0])
        z = np.asarray([-1.0, 3.0, 4.0])
        np.testing.assert_allclose(
            pairwise.simpo(self.policy, preference, scale=2.0, target=1.0),
            np.log1p(np.exp(-z)),
            rtol=1e-6,
        )

    def test_without_a_target_it_is_dpo_without_a_reference(self):
        preference = jnp.asarray([0.2, 0.7, 0.5])
        np.testing.assert_allclose(
            pairwise.simpo(self.policy, preference, scale=2.0, target=0.0),
            pairwise.dpo(self.policy[:, 0] - self.policy[:, 1], preference, tau=2.0),
            rtol=1e-6,
        )

    def test_the_gradient_agrees_with_finite_differences(self):
        preference = jnp.asarray([0.2, 0.7, 0.4])
        assert_differentiated(
            lambda x: pairwise.simpo(x, preference, scale=2.0, target=1.0), self.policy
        )

    @pytest.mark.parametrize(
        ("scale", "target", "message"), [(0.0, 1.0, "scale > 0"), (2.0, -0.1, "target >= 0")]
    )
    def test_coefficients_out_of_range_are_refused(self, scale, target, message):
        with pytest.raises(ValueError, match=message):
            pairwise.simpo(self.policy, jnp.ones(3), scale=scale, target=target)


class TestSlicHF:
    policy = jnp.asarray([[-3.0, -5.0], [-4.0, -3.5], [-2.0, -2.0]])

    def test_hard_labels_give_the_papers_equation(self):
        """max(0, delta - log pi(y+) + log pi(y-)) - lambda log pi(y+) with delta 1, lambda 0.1."""
        preference = jnp.asarray([1.0, 1.0, 0.0])
        expected = [0.0 + 0.3, 1.5 + 0.4, 1.0 + 0.2]
        np.testing.assert_allclose(
            pairwise.slic_hf(self.policy, preference, delta=1.0, sft_weight=0.1),
            expected,
            rtol=1e-6,
        )

    def test_soft_labels_give_the_expectation(self):
        preference = jnp.asarray([0.2, 0.7, 0.5])
        loss = functools.partial(pairwise.slic_hf, self.policy, delta=1.0, sft_weight=0.1)
        one, zero = jnp.ones(3), jnp.zeros(3)
        np.testing.assert_allclose(
            loss(preference), preference * loss(one) + (1 - preference) * loss(zero), rtol=1e-6
        )

    def test_the_gradient_agrees_with_finite_differences(self):
        preference = jnp.asarray([0.2, 0.7, 0.4])
        assert_differentiated(
            lambda x: pairwise.slic_hf(x, preference, delta=1.0, sft_weight=0.1), self.policy
        )

    @pytest.mark.parametrize(
        ("delta", "sft_weight", "message"),
        [(0.0, 0.1, "delta > 0"), (1.0, -0.1, "sft_weight >= 0")],
    )
    def test_coefficients_out_of_range_are_refused(self, delta, sft_weight, message):
        with pytest.raises(ValueError, match=message):
            pairwise.slic_hf(self.policy, jnp.ones(3), delta=delta, sft_weight=sft_weight)
