"""Rows that ended leave the decoding loop: nothing changes but the work, none changes device."""

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.language_model import LanguageModel, SpecialIds
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Strategy, sample, stages
from po_jax.t5.language_model import T5LM
from tests.test_sampling import FAMILIES, SCANNED, TINY

EOS = 1
WIDE = T5LM(dataclasses.replace(SCANNED.config, vocab_size=5, dtype=jnp.float32))


@dataclasses.dataclass(frozen=True)
class Alarm(LanguageModel):
    """Says a prompt's second token until its first, and one more for each completion before."""

    vocab_size, special_ids = 40, SpecialIds()

    rows: list = dataclasses.field(default_factory=list, hash=False, compare=False)

    def for_sampling(self, params):
        return params

    def encode(self, params, prompt):
        return prompt

    def prefill(self, params, encoded, samples, max_length):
        ends = encoded[:, :1] + jnp.arange(samples)[None]
        return {"says": encoded[:, 1], "ends": ends.reshape(-1), "step": jnp.zeros((), jnp.int32)}

    def extend(self, params, cache, tokens):
        jax.debug.callback(lambda: self.rows.append(len(tokens)))
        says = jnp.repeat(cache["says"], len(tokens) // len(cache["says"]))
        token = jnp.where(cache["step"] + 1 == cache["ends"], EOS, says)
        return jax.nn.one_hot(token, self.vocab_size) * 1e3, {**cache, "step": cache["step"] + 1}

    def take(self, cache, prompts, rows):
        return {**cache, "says": prompts(cache["says"], 0), "ends": rows(cache["ends"], 0)}


def test_rows_that_ended_cost_nothing():
    """Of 16 prompts with 2 completions that end at 1 .. 16 and 2 .. 17."""
    model = Alarm()
    order = np.random.default_rng(0).permutation(16)
    prompt = jnp.asarray(np.stack([order + 1, order + 11], axis=1), jnp.int32)
    rollout = sample(model, Strategy(50), {}, None, prompt, jnp.zeros((16, 2)), jax.random.key(0))
    jax.effects_barrier()
    np.testing.assert_array_equal(rollout.mask.sum(-1), order[:, None] + [1, 2])
    said = np.where(rollout.mask & (rollout.completion != EOS), order[:, None, None] + 11, 0)
    np.testing.assert_array_equal(np.where(rollout.completion == EOS, 0, rollout.completion), said)
    # After t tokens 33 - 2 t rows are left: 15 after 9, 7 after 13, and 8 are the fewest.
    assert model.rows == [32] * 9 + [16] * 4 + [8] * 4


def prompts(count):
    """Of different lengths, the rest padding."""
    tokens = np.random.default_rng(1).integers(2, 5, (count, 6)).astype(np.int32)
    return np.where(np.arange(6) < np.arange(count)[:, None] % 6 + 1, tokens, 0)


def program(model, strategy):
    """`sample`, compiled anew."""
    return jax.jit(functools.partial(sample.__wrapped__, model, strategy))


def equal(one, other):
    """The same draws; log-probabilities up to the rounding of products of fewer rows."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if a.dtype == jnp.float32:
            np.testing.assert_allclose(a, b, atol=1e-5)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("model", "samples", "options"),
    [
        (TINY, 2, {"temperature": 0.7, "top_k": 3, "min_length": 2}),
        (WIDE, 5, {"top_p": 0.9}),
        # A cache as short as its window.
        pytest.param(FAMILIES["t5gemma"], 2, {}, marks=pytest.mark.slow),
    ],
    ids=["t5", "scanned", "t5gemma"],
)
def test_draws_are_those_of_one_loop(model, samples, options, monkeypatch):
    strategy = Strategy(20, **options)
    init = jax.jit(model.init)
    pi, mu = (init(jax.random.key(seed)) for seed in (3, 4))
    prompt = prompts(33)
    beta = np.tile(np.linspace(0, 1, samples, dtype=np.float32), (33, 1))
    given = (pi, mu, prompt, beta, jax.random.key(5))
    staged = program(model, strategy)(*given)
    monkeypatch.setattr(stages, "STAGES", 1)
    equal(staged, program(model, strategy)(*given))
    # The last stage was gone through.
    assert np.mean(staged.mask[..., -1]) < 1 / 8


def test_on_a_mesh_too_and_no_row_changes_its_device(monkeypatch):
    """(4, 2) devices; what they send each other is within a pair that shares one model."""
    partitioner = make_partitioner(2)
    init, axes = jax.jit(TINY.init), TINY.parameter_axes()
    pi, mu = (
        jax.device_put(params, partitioner.shardings(params, axes))
        for params in (init(jax.random.key(seed)) for seed in (3, 4))
    )
    beta = np.tile(np.array([0.0, 0.3, 1.0], np.float32), (44, 1))
    rows = partitioner.distribute((prompts(44), beta))

    def compiled():
        with partitioner.activate():
            lowered = program(TINY, Strategy(16)).lower(pi, mu, *rows, jax.random.key(5))
            return lowered.compile()

    staged = compiled()
    sent = re.findall(
        r" = (\S+) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\(.*?"
        r"(?:replica_groups|source_target_pairs)=(.*?), \w+=",
        staged.as_text(),
    )
    pairs = ("[4,2]<=[8]", "{{0,1},{2,3},{4,5},{6,7}}", "{{1,0},{3,2},{5,4},{7,6}}")
    pairs += ("mesh['axis_0'=4,'axis_1'=2] {'axis_1'}",)
    assert any(kind != "pred[]" for kind, _ in sent)
    for kind, groups in sent:
        assert kind == "pred[]" or groups in pairs, (kind, groups)
    drawn = staged(pi, mu, *rows, jax.random.key(5))
    monkeypatch.setattr(stages, "STAGES", 1)
    equal(drawn, compiled()(pi, mu, *rows, jax.random.key(5)))


def test_the_second_call_compiles_nothing():
    model, beta = Alarm(), jnp.zeros((16, 1))
    draw = functools.partial(sample, model, Strategy(7), {}, None)
    draw(jnp.full((16, 2), 3, jnp.int32), beta, jax.random.key(9))
    compiled = sample._cache_size()
    draw(jnp.full((16, 2), 5, jnp.int32), beta, jax.random.key(10))
    assert sample._cache_size() == compiled


@pytest.mark.parametrize("samples", [1, 2, 3, 7])
def test_who_goes_on(samples):
    """Against a walk over the rows in Python."""
    rng = np.random.default_rng(samples)
    now, then = stages.stages(2, 34, samples)[:2]
    assert now.rows == 17 * samples and then.rows < now.rows
    for share in (0.0, 0.1, 0.3, 0.5, 0.6, 1.0):
        running = rng.random((2, now.groups, now.size)) < share
        packing = stages.pack(jnp.asarray(running.reshape(-1)), now, then)
        packing = types.SimpleNamespace(**jax.device_get(vars(packing)))
        needed = (-(-running.sum(-1) // then.size)).sum(-1)
        fits = stages.fits(jnp.asarray(running.reshape(-1)), now, then)
        assert bool(fits) == (needed <= then.groups).all()
        for part in range(2):
            stands = packing.row[part][packing.taken[part]]
            assert len(set(stands)) == len(stands)
            expected = np.flatnonzero(running[part])
            if needed[part] <= then.groups:
                np.testing.assert_array_equal(np.sort(stands), expected)
            assert set(stands) <= set(expected)
            places = np.flatnonzero(packing.taken[part])
            np.testing.assert_array_equal(packing.place[part][stands], places)
            np.testing.assert_array_equal(np.flatnonzero(packing.goes[part]), np.sort(stands))
            prompts_of = packing.group[part][places // then.size]
            np.testing.assert_array_equal(prompts_of, stands // now.size)


def test_few_rows_stay_together():
    assert len(stages.stages(1, 1, 1)) == len(stages.stages(8, 56, 2)) == 1
    assert stages.stages(8, 100, 2) == [stages.Stage(1, 100, 2)]  # that no mesh of 8 shares out
    sizes = [(stage.groups, stage.size) for stage in stages.stages(2, 26, 4)]
    assert sizes == [(13, 4), (13, 2), (13, 1)]
