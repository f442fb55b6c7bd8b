"""Log-probabilities against plain softmax code, and KL estimators against full enumeration."""

import re

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads
import numpy as np
import pytest

from po_jax import logprobs

BATCH, LENGTH, EMB, VOCAB = 3, 7, 5, 11


def example(seed: int = 0, scale: float = 3.0):
    key_logits, key_tokens = jax.random.split(jax.random.key(seed))
    logits = scale * jax.random.normal(key_logits, (BATCH, LENGTH, VOCAB))
    return logits, jax.random.randint(key_tokens, (BATCH, LENGTH), 0, VOCAB)


def plain_token_logprobs(logits, tokens):
    return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]


def test_token_logprobs_and_their_gradient_are_those_of_log_softmax():
    logits, tokens = example()
    weights = jnp.linspace(-1.0, 2.0, BATCH * LENGTH).reshape(BATCH, LENGTH)
    for ours, plain in (
        (logprobs.token_logprobs(logits, tokens), plain_token_logprobs(logits, tokens)),
        (
            jax.grad(lambda x: jnp.sum(weights * logprobs.token_logprobs(x, tokens)))(logits),
            jax.grad(lambda x: jnp.sum(weights * plain_token_logprobs(x, tokens)))(logits),
        ),
    ):
        np.testing.assert_allclose(ours, plain, atol=2e-6)


def test_token_logprobs_gradient_agrees_with_finite_differences():
    logits, tokens = example()
    check_grads(
        lambda x: logprobs.token_logprobs(jnp.asarray(x), tokens),
        (logits,),
        order=1,
        modes=["rev"],
        atol=1e-2,
        rtol=1e-2,
    )


def test_log_normaliser_has_its_own_gradient():
    logits, tokens = example()
    square = lambda x: jnp.sum(jnp.square(logprobs.select_and_normalise(x, tokens)[1]))  # noqa: E731
    plain = lambda x: jnp.sum(jnp.square(jax.nn.logsumexp(x, axis=-1)))  # noqa: E731
    np.testing.assert_allclose(jax.grad(square)(logits), jax.grad(plain)(logits), atol=1e-5)


def test_token_logprobs_are_float32_and_survive_large_bfloat16_logits():
    logits, tokens = example(scale=1e4)
    logits = logits.astype(jnp.bfloat16)
    scores = logprobs.token_logprobs(logits, tokens)
    gradient = jax.grad(lambda x: jnp.sum(logprobs.token_logprobs(x, tokens)))(logits)
    assert scores.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    expected = plain_token_logprobs(np.asarray(logits, np.float64), tokens)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert np.all(np.isfinite(gradient.astype(jnp.float32)))


def test_backward_holds_one_array_of_the_vocabulary_size_and_scatters_nothing():
    """Beyond its inputs (the logits) and output (their cotangent), the program keeps little."""
    batch, vocabulary = 64, 4096
    logits = jax.ShapeDtypeStruct((batch, vocabulary), jnp.float32)
    tokens = jax.ShapeDtypeStruct((batch,), jnp.int32)
    gradient = jax.grad(lambda x, y: jnp.sum(logprobs.token_logprobs(x, y)))
    compiled = jax.jit(gradient).lower(logits, tokens).compile()
    assert " scatter(" not in compiled.as_text()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * batch * vocabulary * 4


def test_a_vocabulary_on_several_devices_stays_there():
    """Only sums over the vocabulary cross devices, never logits."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), (jax.sharding.AxisType.Auto,) * 2)
    logits = jax.ShapeDtypeStruct(
        (4, 8, 4096), jnp.float32, sharding=NamedSharding(mesh, P("data", None, "model"))
    )
    tokens = jax.ShapeDtypeStruct((4, 8), jnp.int32, sharding=NamedSharding(mesh, P("data")))
    gradient = jax.grad(lambda x, y: jnp.sum(logprobs.token_logprobs(x, y)))
    text = jax.jit(gradient).lower(logits, tokens).compile().as_text()
    assert "all-reduce" in text
    assert not re.search("all-gather|all-to-all|collective-permute", text)


@pytest.mark.parametrize("chunk", [1, 3, 7, 10])
def test_chunked_scores_and_gradients_equal_the_whole_ones(chunk):
    key_hidden, key_kernel, key_tokens = jax.random.split(jax.random.key(1), 3)
    hidden = jax.random.normal(key_hidden, (BATCH, 2, LENGTH, EMB))
    kernel = jax.random.normal(key_kernel, (EMB, VOCAB))
    tokens = jax.random.randint(key_tokens, (BATCH, 2, LENGTH), 0, VOCAB)
    weights = jnp.linspace(-1.0, 2.0, tokens.size).reshape(tokens.shape)

    def whole(kernel, hidden):
        scores = logprobs.token_logprobs(hidden @ kernel, tokens)
        return jnp.sum(weights * scores), scores

    def chunked(kernel, hidden):
        scores = logprobs.chunked_token_logprobs(lambda h: h @ kernel, hidden, tokens, chunk=chunk)
        return jnp.sum(weights * scores), scores

    (_, expected), expected_gradients = jax.value_and_grad(whole, (0, 1), has_aux=True)(
        kernel, hidden
    )
    (_, scores), gradients = jax.value_and_grad(chunked, (0, 1), has_aux=True)(kernel, hidden)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), gradients, expected_gradients
    )


def test_chunks_need_a_fraction_of_the_memory():
    batch, length, emb, vocabulary = 4, 64, 8, 4096
    hidden = jax.ShapeDtypeStruct((batch, length, emb), jnp.float32)
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    kernel = jax.ShapeDtypeStruct((emb, vocabulary), jnp.float32)

    def peak(score):
        gradient = jax.grad(lambda k, h, t: jnp.sum(score(k, h, t)), argnums=(0, 1))
        compiled = jax.jit(gradient).lower(kernel, hidden, tokens).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = peak(lambda k, h, t: logprobs.token_logprobs(h @ k, t))
    chunked = peak(lambda k, h, t: logprobs.chunked_token_logprobs(lambda x: x @ k, h, t, chunk=8))
    assert whole >= batch * length * vocabulary * 4
    assert chunked < whole / 4


def test_chunk_must_be_positive():
    logits, tokens = example()
    with pytest.raises(ValueError, match="expected chunk >= 1, got 0"):
        logprobs.chunked_token_logprobs(lambda h: h, logits, tokens, chunk=0)


def test_sequence_logprob_sums_or_averages_the_masked_tokens_only():
    scores = jnp.asarray([[-1.0, -2.0, jnp.nan], [-4.0, -5.0, -6.0], [-7.0, jnp.nan, jnp.nan]])
    mask = jnp.asarray([[True, True, False], [True, True, True], [False, False, False]])
    np.testing.assert_array_equal(logprobs.sequence_logprob(scores, mask), [-3.0, -15.0, 0.0])
    np.testing.assert_array_equal(
        logprobs.sequence_logprob(scores, mask, reduce="mean"), [-1.5, -5.0, 0.0]
    )
    gradient = jax.grad(lambda x: jnp.sum(logprobs.sequence_logprob(x, mask)))(scores)
    np.testing.assert_array_equal(gradient, mask.astype(jnp.float32))


def test_margin_is_the_difference_of_the_log_ratios():
    policy = jnp.asarray([[-1.0, -2.0], [-3.0, -5.0]])
    reference = jnp.asarray([[-1.5, -4.0], [-3.0, -5.0]])
    np.testing.assert_array_equal(logprobs.margin(policy, reference), [0.5 - 2.0, 0.0])


class TestKL:
    """A policy over 11 outcomes, whose expectations are sums."""

    policy_logits = jax.random.normal(jax.random.key(2), (VOCAB,))
    reference_logits = jax.random.normal(jax.random.key(3), (VOCAB,))

    def expectation(self, estimator, logits):
        """E_pi of the estimator with the sampling distribution held fixed."""
        sampling = jax.lax.stop_gradient(jax.nn.softmax(logits))
        values = estimator(jax.nn.log_softmax(logits), jax.nn.log_softmax(self.reference_logits))
        return jnp.sum(sampling * values)

    def exact(self, logits):
        return logprobs.kl_exact(logits, self.reference_logits)

    def reverse(self, logits):
        return logprobs.kl_exact(self.reference_logits, logits)

    def test_exact_kl_is_the_sum_over_the_vocabulary(self):
        policy, reference = (
            np.exp(np.asarray(x, np.float64)) / np.exp(np.asarray(x, np.float64)).sum()
            for x in (self.policy_logits, self.reference_logits)
        )
        expected = np.sum(policy * np.log(policy / reference))
        np.testing.assert_allclose(self.exact(self.policy_logits), expected, rtol=1e-5)

    def test_exact_kl_with_impossible_tokens_is_finite_and_so_is_its_gradient(self):
        """Masked logits: KL((1/2, 1/2, 0) || (1/4, 1/4, 1/2)) = log 2."""
        policy = jnp.asarray([[0.0, 0.0, -jnp.inf]])
        reference = jnp.log(jnp.asarray([[0.25, 0.25, 0.5]]))
        np.testing.assert_allclose(logprobs.kl_exact(policy, reference), [np.log(2)], rtol=1e-6)
        np.testing.assert_allclose(logprobs.kl_exact(policy, policy), [0.0])
        gradient = jax.grad(lambda x: logprobs.kl_exact(x, reference)[0])(policy)
        assert np.all(np.isfinite(gradient))

    @pytest.mark.parametrize("estimator", [logprobs.kl_k1, logprobs.kl_k3])
    def test_k1_and_k3_are_unbiased(self, estimator):
        np.testing.assert_allclose(
            self.expectation(estimator, self.policy_logits),
            self.exact(self.policy_logits),
            rtol=1e-5,
        )

    def test_k2_is_biased_by_a_term_of_third_order(self):
        """Halving the distance to mu divides the bias by 8."""

        def bias(distance):
            logits = self.reference_logits + distance * self.policy_logits
            return self.expectation(logprobs.kl_k2, logits) - self.exact(logits)

        assert abs(bias(1.0)) > 0.01
        np.testing.assert_allclose(bias(0.4) / bias(0.2), 8.0, rtol=0.2)

    def test_gradients_are_those_the_docstrings_state(self):
        gradient = lambda estimator: jax.grad(  # noqa: E731
            lambda x: self.expectation(estimator, x)
        )(self.policy_logits)
        np.testing.assert_allclose(gradient(logprobs.kl_k1), 0.0, atol=1e-6)
        np.testing.assert_allclose(
            gradient(logprobs.kl_k2), jax.grad(self.exact)(self.policy_logits), atol=1e-6
        )
        np.testing.assert_allclose(
            gradient(logprobs.kl_k3), jax.grad(self.reverse)(self.policy_logits), atol=1e-6
        )

    def test_near_the_reference_k3_varies_least(self):
        logits = self.reference_logits + 0.1 * self.policy_logits

        def variance(estimator):
            square = self.expectation(lambda p, m: jnp.square(estimator(p, m)), logits)
            return square - jnp.square(self.expectation(estimator, logits))

        assert variance(logprobs.kl_k3) < variance(logprobs.kl_k1) / 100
        np.testing.assert_allclose(variance(logprobs.kl_k1), 2 * self.exact(logits), rtol=0.1)
