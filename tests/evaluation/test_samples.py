"""Facts about samples against enumeration, and drawing against teacher-forced scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.evaluation.samples import Samples, sequence_kl
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Sampler, Strategy
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.types import Rollout
from tests.vocabularies import Numbers

MODEL = T5LM(
    T5Config(
        vocab_size=11,
        emb_dim=8,
        num_heads=2,
        head_dim=3,
        mlp_dim=7,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
)
PROMPT = np.array([[5, 6, 1, 0], [7, 1, 0, 0], [8, 9, 10, 1], [2, 3, 4, 5], [3, 1, 0, 0]])


def test_kl_of_draws_from_a_known_policy():
    policy, reference = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.3, 0.2, 0.1])
    drawn = np.random.default_rng(3).choice(4, 5000, p=policy)
    samples = Samples(
        drawn[:, None],
        np.ones((5000, 1), bool),
        ("",) * 5000,
        np.zeros(5000, bool),
        np.log(policy[drawn]),
        np.log(reference[drawn]),
    )
    kl = sequence_kl(samples)
    exact = np.sum(policy * np.log(policy / reference))
    spread = np.sqrt(np.sum(policy * np.log(policy / reference) ** 2) - exact**2)
    assert kl.standard_error == pytest.approx(spread / np.sqrt(5000), rel=0.05)
    # A z-score of 3.9 has p = 1e-4.
    assert abs(kl.mean - exact) < 3.9 * kl.standard_error


def test_lengths_endings_and_texts():
    completion = np.array([[5, 7, 1, 0, 0], [5, 7, 9, 9, 5], [1, 0, 0, 0, 0]])
    logprob = np.linspace(-3.0, -1.0, 15).reshape(3, 1, 5)

    def samples(**special_ids):
        mask = completion[:, None] > 0
        return Samples.of(
            Rollout(None, completion[:, None], mask, logprob, None, logprob), Numbers(**special_ids)
        )

    np.testing.assert_array_equal(samples().lengths(), [3, 5, 1])
    np.testing.assert_array_equal(samples().ended, [True, False, True])
    np.testing.assert_array_equal(samples(eos_id=9).ended, [False, True, False])
    assert samples().text == ("5 7", "5 7 9 9 5", "")
    assert samples(eos_id=9).text == ("5 7 1", "5 7 5", "1")
    np.testing.assert_allclose(samples().policy_logprob, logprob.sum(axis=(1, 2)))
    with pytest.raises(ValueError, match="log pi and log mu, got one missing"):
        sequence_kl(samples())


def test_a_broken_logprob_is_named():
    tokens = np.ones((3, 1), int)
    logprob = np.array([-1.0, np.nan, -2.0])
    samples = Samples(tokens, tokens > 0, ("",) * 3, np.ones(3, bool), logprob, np.zeros(3))
    with pytest.raises(ValueError, match="got nan at prompt 1"):
        sequence_kl(samples)


@pytest.fixture(scope="module")
def params():
    init = jax.jit(MODEL.init)
    return init(jax.random.key(1)), init(jax.random.key(2))


def draw(policy, reference, batch_size=4):
    partitioner = make_partitioner(devices=jax.devices()[:2])
    sampler = Sampler(MODEL, Strategy(max_length=6), partitioner, batch_size)
    rollout = sampler.draw_all(policy, reference, PROMPT, (0.0,), jax.random.key(0))
    return Samples.of(rollout, Numbers())


def test_drawn_samples_carry_their_own_logprobs(params):
    samples = draw(*params)
    assert samples.completion.shape == (5, 6)
    score = jax.jit(MODEL.score)
    completion, mask = samples.completion[:, None], samples.mask[:, None]
    for of, found in zip(params, (samples.policy_logprob, samples.reference_logprob), strict=True):
        scored = score(of, jnp.asarray(PROMPT), jnp.asarray(completion), jnp.asarray(mask))
        np.testing.assert_allclose(found, scored.sum(axis=(1, 2)), rtol=1e-4)
    for text, row, kept in zip(samples.text, samples.completion, samples.mask, strict=True):
        assert text == " ".join(str(token) for token in row[kept] if token > 1)


def test_without_a_reference_its_logprobs_are_unknown(params):
    assert draw(params[0], None).reference_logprob is None


def test_a_policy_has_no_kl_to_itself(params):
    assert sequence_kl(draw(params[0], params[0])).mean == 0.0


def test_a_batch_that_the_mesh_cannot_divide_is_an_error(params):
    with pytest.raises(ValueError, match="multiple of 2"):
        draw(params[0], None, batch_size=3)
