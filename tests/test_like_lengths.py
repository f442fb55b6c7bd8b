"""Rows in groups of like lengths: what comes of them is what comes of all rows at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from po_jax.judges import Pairs
from po_jax.lengths import EIGHTHS, Lengths
from po_jax.like_lengths import (
    at_own_length,
    grouped,
    in_groups,
    number_of_groups,
    reading_by_length,
)
from po_jax.models import PolicyModel, SupervisedModel
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Sampler, Strategy
from po_jax.t5.language_model import T5LM
from po_jax.training.step import accumulate_gradients, make_train_step
from po_jax.types import PreferenceBatch
from tests.training import small_run
from tests.training.fresh import fresh_state

LIMIT = 512
MODEL = T5LM(dataclasses.replace(small_run.MODEL.config, dropout_rate=0.0))
SHARES = ((0.25, 0.5, 1.0), (1.0,))
PARAMS, OTHERS = (jax.jit(MODEL.init)(jax.random.key(seed)) for seed in (1, 2))


def tokens(rows, seed=0, limit=LIMIT):
    """Rows of 1 to `limit` tokens, most of them short."""
    rng = np.random.default_rng(seed)
    used = np.maximum(limit * rng.random(rows) ** 2, 1).astype(int)
    ids = rng.integers(2, 18, (rows, limit), np.int32)
    return np.where(np.arange(limit) < used[:, None], ids, 0)


def pairs(rows, seed=0):
    """Preferences between completions of 1 to 6 tokens."""
    rng = np.random.default_rng(seed)
    mask = np.arange(6) < rng.integers(1, 7, (rows, 2))[..., None]
    return PreferenceBatch(
        prompt=tokens(rows, seed),
        completion=np.where(mask, rng.integers(2, 18, mask.shape, np.int32), 0),
        mask=mask,
        preference=rng.random(rows).astype(np.float32),
        reference_logprob=rng.normal(-9, 1, (rows, 2)).astype(np.float32),
    )


def partitioner(devices, shares=SHARES[0]):
    return make_partitioner(devices=jax.devices()[:devices], lengths=shares)


def test_as_many_groups_as_rows_are_worth():
    lengths = Lengths()
    for rows, limit, multiple, wanted in (
        (32, 512, 1, 8),
        (64, 512, 1, 8),
        (16, 512, 1, 4),
        (12, 512, 1, 3),
        (4, 512, 1, 1),
        (33, 512, 1, 3),
        (32, 128, 1, 2),
        (32, 512, 2, 8),
        (32, 512, 16, 16),
        (8, 16, 4, 4),
    ):
        found = number_of_groups(lengths, np.zeros((rows, limit), np.int32), multiple)
        assert found == wanted, (rows, limit, multiple)
    assert number_of_groups(Lengths((1.0,)), np.zeros((32, 512), np.int32)) == 1
    assert number_of_groups(lengths, np.zeros((32, 512), np.float32)) == 1
    with partitioner(4).activate():
        assert number_of_groups(lengths, np.zeros((32, 512), np.int32)) == 2


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        (EIGHTHS, {128, 256, 384, 512}),
        ((0.5, 0.625, 0.75, 0.875, 1.0), {256, 320, 384, 448, 512}),
    ],
)
def test_not_every_length_of_a_long_list_is_a_branch(shares, wanted):
    given, seen = jnp.zeros((4, 512), jnp.int32).at[1, 200].set(3), set()

    def function(rows):
        seen.add(rows.shape[1])
        return jnp.int32(rows.shape[1])

    assert jax.jit(lambda rows: at_own_length(Lengths(shares), function, rows))(given) == 256
    assert seen == wanted


@pytest.mark.parametrize("devices", [1, 4])
def test_every_part_sorts_its_own_rows(devices):
    """What a group has of each device is longer than what the group before has of it."""
    rows, mesh = tokens(24), partitioner(devices)
    given = {"x": rows, "index": np.arange(24)}
    with mesh.activate():
        found = jax.jit(lambda given: grouped(mesh.lengths, given, 3))(mesh.distribute(given))
    own = found["index"].reshape(3, devices, -1)
    part = np.arange(devices)[:, None]
    np.testing.assert_array_equal(own // (24 // devices), np.broadcast_to(part, own.shape))
    used = (rows > 0).sum(axis=-1)[own]
    assert (used[:-1].max(axis=-1) <= used[1:].min(axis=-1)).all()
    np.testing.assert_array_equal(found["x"].reshape(24, -1), rows[found["index"].reshape(-1)])


@pytest.mark.parametrize("devices", [1, 2])
def test_a_function_sees_no_more_positions_than_its_group_needs(devices):
    rows, beside = tokens(16), np.arange(16, dtype=np.int32)
    seen = []

    def function(given, own):
        seen.append(given.shape)
        return {"sum": given.sum(axis=-1) + own, "positions": jnp.full_like(own, given.shape[-1])}

    mesh = partitioner(devices)
    with mesh.activate():
        found = jax.jit(lambda *given: in_groups(mesh.lengths, function, *given))(
            *mesh.distribute((rows, beside))
        )
    count = 4 // devices
    assert set(seen) == {(16 // count, length) for length in (128, 256, 512)}
    np.testing.assert_array_equal(found["sum"], rows.sum(axis=-1) + beside)
    used = (rows > 0).sum(axis=-1)
    order = np.argsort(used.reshape(devices, -1), axis=-1, kind="stable")
    ranks = np.argsort(order, axis=-1).reshape(-1)
    group = ranks // (16 // devices // count)
    longest = np.array([used[group == i].max() for i in range(count)])
    wanted = np.array([128, 256, 512])[np.searchsorted([128, 256, 512], longest)]
    assert len(set(wanted)) > 1
    np.testing.assert_array_equal(found["positions"], wanted[group])


def test_a_language_model_that_reads_by_length_is_the_same():
    prompt, batch = tokens(16), pairs(16)
    reading = reading_by_length(MODEL, Lengths(SHARES[0]))
    assert reading == reading_by_length(MODEL, Lengths(SHARES[0])) != MODEL
    assert reading.special_ids == MODEL.special_ids
    encoded, whole = (jax.jit(model.encode)(PARAMS, prompt) for model in (reading, MODEL))
    np.testing.assert_array_equal(encoded.mask, whole.mask)
    here = np.asarray(whole.mask)
    np.testing.assert_allclose(encoded.states[here], whole.states[here], atol=1e-5)
    given = (batch.prompt, batch.completion, batch.mask)
    for name in ("score", "next_token_logits"):
        found, expected = (jax.jit(getattr(m, name))(PARAMS, *given) for m in (reading, MODEL))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_completions_of_other_prompts_are_refused(unchecked):
    batch, reading = pairs(12), reading_by_length(MODEL, Lengths(SHARES[0]))
    given = (batch.prompt[:6], batch.completion, batch.mask)
    for model in (MODEL, reading):
        for name in ("score", "next_token_logits"):
            with pytest.raises(ValueError, match=r"of them .* got \[6, 512\], \[12, 2, 6\]$"):
                getattr(model, name)(PARAMS, *given)


@pytest.mark.parametrize("devices", [1, 2])
def test_draws_are_the_same(devices):
    prompt = tokens(16)
    prompt[3] = 0  # Nothing but padding: all of it is attended to.
    drawn = [
        Sampler(MODEL, Strategy(7), partitioner(devices, shares), 16).draw(
            PARAMS, OTHERS, prompt, (0.0, 0.4), jax.random.key(3)
        )
        for shares in SHARES
    ]
    np.testing.assert_array_equal(drawn[0].completion, drawn[1].completion)
    np.testing.assert_array_equal(drawn[0].prompt, drawn[1].prompt)
    for name in ("policy_logprob", "partner_logprob"):
        np.testing.assert_allclose(getattr(drawn[0], name), getattr(drawn[1], name), atol=1e-5)


@pytest.mark.parametrize("decoded", [False, True], ids=["encoder", "decoder"])
def test_a_judge_says_the_same(decoded):
    batch, said, judge = pairs(16), [], small_run.judge()
    template = dataclasses.replace(judge.model.template, decoded=decoded)
    judge = dataclasses.replace(
        judge,
        model=dataclasses.replace(judge.model, template=template),
        params=jax.tree.map(lambda x: x / 2.0, judge.params),  # less firm
    )
    for shares in SHARES:
        judge = dataclasses.replace(judge, partitioner=partitioner(2, shares))
        said.append(judge.begin(Pairs(batch.prompt, batch.completion, batch.mask))().preference)
    assert np.ptp(said[1]) > 1e-4
    np.testing.assert_allclose(said[0], said[1], atol=1e-5)


@pytest.fixture(scope="module")
def gradient():
    """Of a batch of padded rows, and its metrics."""
    return step(partitioner(1, SHARES[1]))[:2]


def step(mesh, language_model=MODEL, **options):
    """The update of gradient descent, metrics, and programs after two batches."""
    model = PolicyModel(language_model=language_model, objective=small_run.IPO)
    optimizer = optax.sgd(1.0)
    state, shardings = fresh_state(MODEL.init, MODEL.parameter_axes(), optimizer, mesh)
    before = jax.device_get(state.params)
    update = make_train_step(model, optimizer, mesh, shardings, **options)
    state, metrics = update(state, mesh.distribute(pairs(16)), jax.random.key(0))
    after = jax.device_get(state.params)
    update(state, mesh.distribute(pairs(16, seed=1)), jax.random.key(0))
    return jax.tree.map(np.subtract, before, after), metrics, update._cache_size()


@pytest.mark.parametrize(("devices", "micro_batches"), [(1, 1), (2, 2)])
def test_a_step_is_the_same_and_compiles_once(devices, micro_batches, gradient):
    found, metrics, programs = step(partitioner(devices), micro_batches=micro_batches)
    assert programs == 1
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient[0]))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(gradient[0]), strict=True):
        np.testing.assert_allclose(one / largest, other / largest, atol=1e-5)
    assert_metrics_are(gradient[1], metrics)


def test_a_group_without_targets_changes_nothing():
    """Rows without targets are sorted into one group, whose mean loss is 0 / 0."""
    target = tokens(16, seed=1)
    target[[2, 5, 9, 14]] = 0
    batch = {
        "encoder_input_tokens": tokens(16, limit=24),
        "decoder_target_tokens": target,
        "decoder_input_tokens": np.pad(target[:, :-1], ((0, 0), (1, 0))),
        "decoder_loss_weights": (target > 0).astype(np.int32),
    }
    batch = jax.tree.map(jnp.asarray, batch)
    model = SupervisedModel(language_model=MODEL)
    found, expected = (
        accumulate_gradients(
            model.loss_fn, PARAMS, batch, jax.random.key(0), groups, Lengths(SHARES[0])
        )[0]
        for groups in (4, 1)
    )
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one / largest, other / largest, atol=1e-5)


def test_with_dropout_rows_stay_where_they_are():
    dropping = T5LM(dataclasses.replace(MODEL.config, dropout_rate=0.3))
    one, two = (step(partitioner(devices), dropping)[1] for devices in (1, 2))
    assert_metrics_are(one, two)


def assert_metrics_are(expected, metrics):
    for name, metric in expected.items():
        np.testing.assert_allclose(
            metrics[name].compute(), metric.compute(), rtol=1e-5, atol=1e-6, err_msg=name
        )
