"""Rows cut to the fewest positions that hold them: what comes of them is what padded rows give."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax import lengths
from po_jax.data import layouts
from po_jax.data.corpus import BatchStream
from po_jax.lengths import Lengths
from po_jax.models import PolicyModel, SupervisedModel
from po_jax.partitioning import make_partitioner
from po_jax.reporting.clock import StageClock
from po_jax.sampling import Sampler, Strategy
from po_jax.training.offline_feed import OfflineFeed
from po_jax.training.online_feed import OnlineFeed
from po_jax.training.run import Run
from po_jax.training.state import TrainState
from tests.training import small_run

LIMITS = {"inputs": 96, "targets": 48}


def test_the_numbers_of_positions(unchecked):
    assert Lengths().up_to(512) == [64, 128, 192, 256, 320, 384, 448, 512]
    assert Lengths().up_to(64) == [16, 32, 48, 64]
    assert Lengths().up_to(40) == [16, 32, 40]
    assert Lengths().up_to(6) == [6]
    assert Lengths([0.5, 1.0]).up_to(100) == [64, 100]
    assert Lengths((1.0,)).up_to(100) == [100]
    wrong = ((), (0.5,), (0.0, 1.0), (1.0, 0.5), (0.5, 0.5, 1.0), (0.5, 1.5))
    for bad in (*wrong, "1.0", ("0.5", "1.0"), (0.5, None), 1.0, None):
        with pytest.raises(ValueError, match="shares in"):
            Lengths(bad)


def test_nothing_but_padding_is_left_out(caplog):
    rng = np.random.default_rng(0)
    prompt = np.where(np.arange(64) < np.array([[1], [18], [5], [9], [2]]), 7, 0)
    completion = np.where(np.arange(40) < np.array([[3, 18], [2, 9]])[..., None], 5, 0)
    mask = completion > 0
    completion[0, 0, 1] = 0  # a text may hold the padding's id, at its end too
    mask[1, 0, :33] = True
    batch = {
        "prompt": prompt,
        "completion": completion,
        "mask": mask,
        "scores": rng.random((5, 64)),
        "step": np.zeros(64, np.int32),
        "on the device": jnp.zeros((2, 64), jnp.int32),
    }
    lengths._tell.cache_clear()
    with caplog.at_level(logging.INFO):
        cut, again = Lengths().cut(batch), Lengths().cut(batch)
    kept = {"prompt": 32, "completion": 40, "mask": 40}
    for name, rows in batch.items():
        wanted = rows[..., : kept.get(name, rows.shape[-1])]
        np.testing.assert_array_equal(cut[name], wanted)
        np.testing.assert_array_equal(again[name], wanted)
    told = "rows of 40 of 40 and 32 of 64 positions: one of at most 12 sizes to compile for"
    assert [record.getMessage() for record in caplog.records] == [told]
    assert Lengths().cut(np.zeros((3, 64), np.int32)).shape == (3, 16)


def corpus():
    """Like `small_run.corpus`, of sequences whose longest in a batch differ a lot."""
    rng = np.random.default_rng(6)

    def column(limit, words=(2, 18)):
        longest = rng.choice([limit // 5, limit // 3, limit], 21, p=[0.6, 0.35, 0.05])
        parts = [small_run.sequences(rng, 1, most, words) for most in longest]
        return type(parts[0])(*(np.concatenate([getattr(p, a) for p in parts]) for a in FIELDS))

    tokens = {
        "inputs": column(LIMITS["inputs"]),
        "completion_1": column(LIMITS["targets"], (2, 10)),
        "completion_2": column(LIMITS["targets"], (10, 18)),
    }
    return dataclasses.replace(small_run.corpus(), tokens=tokens)


FIELDS = ("values", "lengths")
SHARES = (lengths.EIGHTHS, (1.0,))
COMPARISONS = BatchStream(corpus(), layouts.Comparisons(LIMITS), 8)
PROMPTS = BatchStream(corpus(), layouts.Prompts(LIMITS), 8)
INIT = jax.jit(small_run.MODEL.init)
POLICY, REFERENCE = (INIT(jax.random.key(seed)) for seed in (1, 2))
STATE = TrainState(jnp.int32(0), POLICY, None, None)


def run(folder, shares):
    return Run(
        language_model=small_run.MODEL,
        load_reference=lambda: REFERENCE,
        partitioner=make_partitioner(devices=jax.devices()[:2], lengths=shares),
        key=jax.random.key(4),
        directory=folder / str(len(shares)),
    )


def online(run):
    judge = dataclasses.replace(
        small_run.judge(), params=INIT(jax.random.key(11)), partitioner=run.partitioner
    )
    return OnlineFeed(
        run, PROMPTS, annotator=judge, strategy=Strategy(160), betas=(0.0, 0.3), pieces=2
    )


@pytest.mark.parametrize("feed", [lambda run: OfflineFeed(run, COMPARISONS), online])
def test_a_step_agrees_with_one_of_padded_rows(feed, tmp_path):
    """Its batch, its loss and its gradient."""
    model = PolicyModel(language_model=small_run.MODEL, objective=small_run.IPO)
    gradient = jax.jit(jax.value_and_grad(lambda *given: model.loss_fn(*given, None)[0]))
    cut, padded = (
        feed(run(tmp_path, shares)).batch(2, STATE, StageClock())[0] for shares in SHARES
    )
    assert padded.prompt.shape == (8, 96) and padded.completion.shape[2] in (48, 160)
    assert cut.prompt.shape[1] < 96 and cut.completion.shape[2] < padded.completion.shape[2]
    assert cut.mask.shape == cut.completion.shape
    length = cut.mask.shape[2]
    np.testing.assert_array_equal(cut.completion, padded.completion[:, :, :length])
    assert not padded.mask[:, :, length:].any()
    for name in ("preference", "reference_logprob"):
        np.testing.assert_allclose(getattr(cut, name), getattr(padded, name), atol=1e-5, rtol=1e-5)
    (loss, slope), (expected, wanted) = gradient(POLICY, cut), gradient(POLICY, padded)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    norm = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    for one, other in zip(jax.tree.leaves(slope), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one / norm, other / norm, atol=1e-5)


def test_drawing_for_many_prompts_cuts_each_batch():
    prompt = np.concatenate([batch.arrays["prompt"] for batch in PROMPTS.one_pass()])
    assert len({Lengths().cut(prompt[at : at + 8]).shape for at in (0, 8, 16)}) > 1
    cut, padded = (
        Sampler(
            small_run.MODEL,
            Strategy(9),
            make_partitioner(devices=jax.devices()[:2], lengths=shares),
            8,
        ).draw_all(POLICY, REFERENCE, prompt, (0.0, 0.5), jax.random.key(3))
        for shares in SHARES
    )
    np.testing.assert_array_equal(cut.completion, padded.completion)
    np.testing.assert_array_equal(cut.prompt, prompt)
    np.testing.assert_allclose(cut.policy_logprob, padded.policy_logprob, atol=1e-5)


@pytest.mark.slow
def test_a_resumed_run_is_bit_for_bit_the_same(tmp_path):
    def train(folder, steps):
        return small_run.train(tmp_path / folder, OfflineFeed, COMPARISONS, steps, save_period=1)

    sizes = [Lengths().cut(COMPARISONS.batch(step).arrays)["prompt"].shape for step in range(2)]
    assert sizes[0] != sizes[1]
    train("in_two", 1)
    for one, other in zip(
        jax.tree.leaves(train("in_two", 2)), jax.tree.leaves(train("whole", 2)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_loss_that_counts_padding_is_not_cut(tmp_path):
    counting = SupervisedModel(
        language_model=small_run.MODEL, loss_normalizing_factor="NUM_TOTAL_TARGET_TOKENS"
    )
    assert (
        counting.counts_padding
        and not dataclasses.replace(
            counting, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS"
        ).counts_padding
    )
    cutting = make_partitioner(1, devices=jax.devices()[:1])
    with pytest.raises(ValueError, match=r"expected lengths \(LENGTHS\) of \(1.0,\) for a loss"):
        small_run.offline_ipo(tmp_path, 1, model=counting, partitioner=cutting)


def test_loss_weights_that_were_not_cut_are_named():
    rows = np.tile(np.where(np.arange(48) < 9, 7, 0), (2, 1)).astype(np.int32)
    batch = {
        "encoder_input_tokens": rows,
        "decoder_input_tokens": rows,
        "decoder_target_tokens": rows,
        "decoder_loss_weights": (rows > 0).astype(np.float32),
    }
    model = SupervisedModel(language_model=small_run.MODEL)
    params = small_run.MODEL.init(jax.random.key(0))
    model.loss_fn(params, jax.tree.map(jnp.asarray, batch), None)
    with pytest.raises(ValueError, match=r"targets' shape \(2, 16\), got \(2, 48\) of float32"):
        model.loss_fn(params, jax.tree.map(jnp.asarray, Lengths().cut(batch)), None)
