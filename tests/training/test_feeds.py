"""Feeds: pairs are drawn from whom the algorithm says, and judged; log mu belongs to them."""

import dataclasses
import operator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.data import layouts
from po_jax.data.corpus import BatchStream
from po_jax.judges import Judgement
from po_jax.lora import BASE, LoRA
from po_jax.partitioning import make_partitioner
from po_jax.reporting.clock import StageClock
from po_jax.sampling import Sampler, Strategy
from po_jax.t5.language_model import T5LM
from po_jax.training.offline_feed import OfflineFeed, score_reference
from po_jax.training.online_feed import OnlineFeed, make_batch, penalise
from po_jax.training.randomness import purpose_key
from po_jax.training.run import Run
from po_jax.training.state import TrainState
from po_jax.types import Rollout
from tests.training import small_run

INIT = jax.jit(small_run.MODEL.init)
POLICY, REFERENCE, AVERAGE = (INIT(jax.random.key(seed)) for seed in (1, 2, 3))
CLOCK = StageClock()


class Even:
    """Has no opinion; remembers the pairs that it was asked about, and when."""

    name, antisymmetric = "even", True

    def __init__(self):
        self.events = []
        self.texts = []

    def begin(self, pairs):
        self.events.append(("asked", np.asarray(pairs.completion)))
        self.texts += pairs.texts.get("inputs", [])

        def answer():
            self.events.append(("answered", None))
            return Judgement(np.full(len(pairs.completion), 0.5, np.float32))

        return answer


@pytest.fixture
def run(tmp_path):
    return Run(
        language_model=small_run.MODEL,
        load_reference=lambda: REFERENCE,
        partitioner=make_partitioner(devices=jax.devices()[:2]),
        key=jax.random.key(4),
        directory=tmp_path,
    )


def state(params=POLICY, average=None):
    return TrainState(step=jnp.int32(0), params=params, optimizer_state=None, average=average)


def online(run, betas, annotator=None, **options):
    chosen = {"annotator": annotator or Even(), "strategy": small_run.STRATEGY, **options}
    return OnlineFeed(run, small_run.prompts(), betas=betas, **chosen)


def pairs(feed, step=3, **kwargs):
    return feed.batch(step, state(**kwargs), CLOCK)[0]


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.25, 0.25), (0.0, 1.0)])
def test_log_mu_is_the_references_whether_the_sampler_ran_it_or_not(run, betas):
    batch = pairs(online(run, betas))
    expected = score_reference(
        small_run.MODEL, REFERENCE, batch.prompt, batch.completion, batch.mask
    )
    np.testing.assert_allclose(batch.reference_logprob, expected, atol=1e-4)
    assert batch.reward is None


def test_each_completion_is_drawn_from_its_own_mixture(run):
    def drawn(betas, **kwargs):
        return np.asarray(pairs(online(run, betas), **kwargs).completion)

    best_response, other_policy = drawn((0.0, 1.0)), drawn((0.0, 1.0), params=AVERAGE)
    np.testing.assert_array_equal(best_response[:, 1], other_policy[:, 1])  # from mu
    assert (best_response[:, 0] != other_policy[:, 0]).any()  # from pi
    self_play = drawn((0.0, 0.0))
    np.testing.assert_array_equal(best_response[:, 0], self_play[:, 0])
    assert (best_response[:, 1] != self_play[:, 1]).any()


NARROW = T5LM(dataclasses.replace(small_run.MODEL.config, dtype="bfloat16"))


def test_a_frozen_reference_is_cast_once_and_not_by_the_sampler(run):
    run = dataclasses.replace(run, language_model=NARROW)
    cast, kept = (
        "convert_element_type" in str(jax.make_jaxpr(NARROW.for_sampling)(params))
        for params in (REFERENCE, run.reference)
    )
    assert cast and not kept
    prompt, completion = jnp.asarray([[5, 6, 1], [7, 1, 0]]), jnp.asarray([[[8, 9]], [[3, 1]]])
    found, expected = (
        score_reference(NARROW, params, prompt, completion, completion > 0)
        for params in (run.reference, REFERENCE)
    )
    np.testing.assert_array_equal(found, expected)


def test_a_reference_stays_where_it_is_read_as_it_lies_or_shared(run):
    halves = jax.tree.map(lambda x: x.astype("bfloat16"), REFERENCE)
    for params in (REFERENCE, halves):
        kept = dataclasses.replace(run, load_reference=lambda params=params: params).reference
        assert all(map(operator.is_, jax.tree.leaves(kept), jax.tree.leaves(params)))
    adapted = LoRA(NARROW, rank=2)
    params = {**jax.eval_shape(adapted.init, jax.random.key(0)), BASE: REFERENCE}
    params["adapter"] = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), params["adapter"])
    kept = dataclasses.replace(run, language_model=adapted, load_reference=lambda: params).reference
    assert kept[BASE] is REFERENCE  # The policy's very own.
    assert {leaf.dtype for leaf in jax.tree.leaves(kept["adapter"])} == {jnp.bfloat16.dtype}


def test_the_partner_may_be_the_moving_average_and_log_mu_stays_the_references(run):
    batch = pairs(online(run, (0.0, 1.0), against_average=True), average=AVERAGE)
    swapped = dataclasses.replace(run, load_reference=lambda: AVERAGE)
    as_reference = pairs(online(swapped, (0.0, 1.0)))
    np.testing.assert_array_equal(batch.completion, as_reference.completion)
    expected = score_reference(
        small_run.MODEL, REFERENCE, batch.prompt, batch.completion, batch.mask
    )
    np.testing.assert_allclose(batch.reference_logprob, expected, atol=1e-5)


def test_padding_is_told_of_a_judge_that_reads():
    tokens = jnp.asarray([[[4, 1], [5, 1]], [[6, 1], [7, 1]], [[8, 1], [9, 1]]])
    logprob = -jnp.ones(tokens.shape)
    rollout = Rollout(jnp.ones((3, 5), jnp.int32), tokens, tokens > 0, logprob, logprob, logprob)

    def metrics(read):
        judgement = Judgement(jnp.full(3, 0.5), read=read)
        given = (rollout, judgement, jnp.float32(0.0), jnp.int32(7))
        return make_batch(small_run.MODEL, (), None, *given)[1]

    found = metrics(jnp.asarray([[10, 16], [12, 16], [20, 32]]))
    assert found["judge_padding"].compute() == 1 - 42 / 64
    assert "judge_padding" not in metrics(None)


def test_a_step_is_the_same_whenever_it_is_asked_for(run):
    feed = online(run, (0.25, 0.25))
    first, again = pairs(feed), pairs(feed)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (pairs(feed, step=4).completion != first.completion).any()


def test_a_judge_on_the_host_is_asked_about_one_piece_while_the_next_is_drawn(run):
    judge = Even()
    batch = pairs(online(run, (0.0, 0.0), judge, pieces=4))
    assert [event for event, _ in judge.events] == ["asked"] * 4 + ["answered"] * 4
    asked = np.concatenate([completion for _, completion in judge.events[:4]])
    np.testing.assert_array_equal(asked, batch.completion)
    whole = small_run.prompts().batch(3).arrays["prompt"]
    np.testing.assert_array_equal(batch.prompt, whole)


def test_the_penalty_moves_preference_and_reward_towards_the_completion_that_ended():
    ended = jnp.asarray([[True, True], [True, False], [False, True], [False, False]])
    judged = Judgement(jnp.full(4, 0.5), jnp.asarray([[2.0, 1.0]] * 4))
    preference, reward = penalise(judged, ended, jnp.float32(0.3))
    np.testing.assert_allclose(preference, [0.5, 0.8, 0.2, 0.5], atol=1e-6)
    np.testing.assert_allclose(reward, [[2, 1], [2, 0.7], [1.7, 1], [1.7, 0.7]], atol=1e-6)
    preference, _ = penalise(Judgement(jnp.asarray([0.9, 0.1])), ended[1:3], jnp.float32(0.3))
    np.testing.assert_allclose(preference, [1.0, 0.0])  # stays in [0, 1]


def test_the_penalty_looks_at_the_completion_alone(run):
    # Every prompt ends with EOS, and many completions do not.
    batch = pairs(online(run, (0.0, 0.0), missing_eos_penalty=0.5))
    ended = ((np.asarray(batch.completion) == 1) & np.asarray(batch.mask)).any(axis=-1)
    assert 0 < ended.sum() < ended.size
    expected = 0.5 + 0.5 * ended[:, 0] - 0.5 * ended[:, 1]
    np.testing.assert_allclose(batch.preference, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (0.0, 1.5)}, r"betas\[1\]: expected a weight in \[0, 1\], got 1.5"),
        ({"betas": (0.0, 0.0), "missing_eos_penalty": 2.0}, "missing_eos_penalty"),
        ({"betas": (0.0, 0.0), "pieces": 0}, "pieces"),
        ({"betas": (0.0, 0.0), "strategy": Strategy(5, temperature=0.7)}, "temperature=0.7"),
        ({"betas": (0.0, 0.0), "strategy": Strategy(5, top_k=2)}, "the policy itself"),
    ],
)
def test_options_out_of_range_are_refused(run, options, message):
    with pytest.raises(ValueError, match=message):
        online(run, **options)


def test_offline_log_mu_is_scored_once_and_kept_beside_the_run(run, tmp_path):
    feed = OfflineFeed(run, small_run.comparisons())
    for step in range(6):  # two epochs of 21 examples in batches of 8
        batch = pairs(feed, step)
        expected = score_reference(
            small_run.MODEL, REFERENCE, batch.prompt, batch.completion, batch.mask
        )
        np.testing.assert_allclose(batch.reference_logprob, expected, atol=1e-4)
    feed.save()
    assert Path(tmp_path / "reference_logprobs.npz").exists()
    resumed = pairs(OfflineFeed(run, small_run.comparisons()), 5)
    np.testing.assert_array_equal(resumed.reference_logprob, batch.reference_logprob)


def test_a_judge_gets_the_texts_of_the_data_with_each_piece(run):
    judge, prompts = Even(), small_run.prompts()
    corpus = dataclasses.replace(
        prompts.corpus, texts={"inputs": [f"prompt {i}" for i in range(len(prompts.corpus))]}
    )
    stream = BatchStream(corpus, layouts.Prompts(small_run.LENGTHS), 8)
    feed = OnlineFeed(
        run, stream, annotator=judge, strategy=small_run.STRATEGY, betas=(0.0, 0.0), pieces=2
    )
    pairs(feed)
    assert judge.texts == stream.batch(3).texts["inputs"]
    assert len(set(judge.texts)) == 8


def test_pieces_and_weights_that_do_not_fit_are_named(run, unchecked):
    with pytest.raises(ValueError, match="pieces: expected a divisor of the batch size 8, got 3"):
        online(run, (0.0, 0.0), pieces=3)
    with pytest.raises(ValueError, match="betas: expected two weights, got"):
        online(run, (0.0,))


def test_a_scheduled_weight_is_that_of_the_step(run):
    # At step 3 the schedule gives 1/4; where it gives 0 the completion is the policy's own.
    scheduled = online(run, (0.0, lambda step: 0.25 * (step // 3).astype(jnp.float32)))
    early, facts = scheduled.batch(2, state(), CLOCK)
    np.testing.assert_allclose(facts["beta"].compute(), 0.0)
    self_play = online(run, (0.0, 0.0)).batch(2, state(), CLOCK)[0]
    np.testing.assert_array_equal(early.completion, self_play.completion)
    later = pairs(scheduled)
    np.testing.assert_array_equal(later.completion, pairs(online(run, (0.0, 0.25))).completion)
    assert (later.step == 3).all()


class Longest:
    """Prefers the longer completion; on the host."""

    name, antisymmetric = "longest", True

    def __init__(self):
        self.asked = 0

    def begin(self, pairs):
        length = np.asarray(pairs.mask).sum(axis=-1)
        self.asked += 1
        verdict = 0.5 + 0.4 * np.sign(length[:, 0] - length[:, 1])
        return lambda: Judgement(verdict.astype(np.float32))


@pytest.mark.parametrize("pieces", [1, 2])
def test_of_candidates_the_pair_is_the_best_and_the_worst(run, pieces):
    judge = Longest()
    feed = online(run, (1.0, 1.0), judge, candidates=5, pieces=pieces)
    batch, facts = feed.batch(3, state(), CLOCK)
    assert judge.asked == pieces * 5 * 4 // 2
    # The same five, drawn as they are: from mu, with the same keys.
    key = jax.random.fold_in(purpose_key(run.key, 3, "sampling"), 0)
    sampler = Sampler(run.language_model, small_run.STRATEGY, run.partitioner, 8)
    half = np.split(small_run.prompts().batch(3).arrays["prompt"], pieces)[0]
    drawn = sampler.draw(POLICY, REFERENCE, half, (1.0,) * 5, key)
    length = np.asarray(drawn.mask.sum(axis=-1))
    rows = np.arange(len(half))
    for place, chosen in ((0, length.argmax(axis=1)), (1, 4 - length[:, ::-1].argmin(axis=1))):
        np.testing.assert_array_equal(
            batch.completion[: len(half), place], np.asarray(drawn.completion)[rows, chosen]
        )
    longer = np.asarray(batch.mask.sum(axis=-1))
    expected = np.where(longer[:, 0] > longer[:, 1], 0.9, 0.5)
    np.testing.assert_allclose(batch.preference, expected, atol=1e-6)
    expected = score_reference(
        small_run.MODEL, REFERENCE, batch.prompt, batch.completion, batch.mask
    )
    np.testing.assert_allclose(batch.reference_logprob, expected, atol=1e-4)
    assert "kl" not in facts  # what was chosen is no fair draw
    assert (
        feed.made_from()["candidates"] == 5 and "candidates" not in online(run, (0, 0)).made_from()
    )


@pytest.mark.parametrize(("candidates", "betas"), [(1, (0.0, 0.0)), (4, (0.0, 0.5))])
def test_candidates_are_two_or_more_and_drawn_alike(run, candidates, betas):
    with pytest.raises(ValueError, match="candidates: expected 2 or more, drawn with equal"):
        online(run, betas, candidates=candidates)
