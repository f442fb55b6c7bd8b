"""Adapters: nothing at their start, what they merge to, and what full training would do."""

import dataclasses
from functools import partial
import re

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.language_model import LanguageModel, SpecialIds, frozen_part, trained_part
from po_jax.lora import LoRA
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Sampler, Strategy
from po_jax.sampling.mixture import sample
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.t5gemma.config import StackConfig, T5Gemma2Config, T5GemmaConfig
from po_jax.t5gemma.language_model import T5GemmaLM
from po_jax.types import Rollout

T5 = T5Config(
    vocab_size=23,
    emb_dim=8,
    num_heads=2,
    head_dim=5,
    mlp_dim=7,
    num_encoder_layers=1,
    num_decoder_layers=2,
)
STACK = StackConfig(
    emb_dim=8,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=11,
    num_layers=2,
    query_scalar=3,
    sliding_window=3,
)
GEMMA = T5GemmaConfig(23, dataclasses.replace(STACK, emb_dim=10), STACK)
SECOND = T5Gemma2Config(23, *[dataclasses.replace(STACK, attention_softcap=None)] * 2)
BASES = {
    "t5": T5LM(T5),
    "scanned": T5LM(dataclasses.replace(T5, scan_layers=True, shared_relative_bias=False)),
    "t5gemma": T5GemmaLM(
        dataclasses.replace(GEMMA, scan_layers=True), special_ids=SpecialIds(start=2)
    ),
    "t5gemma2": T5GemmaLM(SECOND, special_ids=SpecialIds(start=2)),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("t5gemma", "t5gemma2")]
PROMPT = jnp.asarray([[4, 5, 6, 1, 0], [7, 8, 9, 10, 1], [11, 1, 0, 0, 0]], jnp.int32)
COMPLETION = jnp.asarray(np.random.default_rng(0).integers(2, 23, (3, 2, 4)), jnp.int32)
MASK = jnp.ones(COMPLETION.shape, bool)


@pytest.fixture(params=["t5", "scanned", *SLOW])
def model(request):
    return LoRA(BASES[request.param], rank=3, alpha=6.0, targets=".*")


def adapted(model, seed=1, size=0.3):
    """Parameters whose adapter has been somewhere."""
    params = jax.jit(model.init)(jax.random.key(0))
    return {**params, "adapter": moved(params["adapter"], seed, size)}


def moved(tree, seed, size=0.3):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + size * rng.normal(size=x.shape).astype(np.float32), tree)


def score(model, params):
    return jax.jit(model.score)(params, PROMPT, COMPLETION, MASK)


def merged(model, params):
    """W + (alpha / r) A B in every kernel, by numpy."""
    base = {name: np.asarray(x) for name, x in flatten_dict(params["base"], sep="/").items()}
    for path, factors in _factors(params["adapter"]).items():
        a, b = (np.asarray(factors[which]) for which in "ab")
        layers = "ilr,rlo->ilo" if a.ndim == 3 else "ir,ro->io"
        change = 2.0 * np.einsum(layers, a, b)  # alpha / rank
        kernel = base[path]
        if a.ndim == 3 and path.endswith("out/kernel"):  # [H, L, D, E]
            joined = np.moveaxis(kernel, 1, 2).reshape(-1, kernel.shape[1], kernel.shape[-1])
            assert joined.shape[0] == a.shape[0]
            change = np.moveaxis(
                np.moveaxis(change, 1, 0).reshape(
                    kernel.shape[1], kernel.shape[0], kernel.shape[2], kernel.shape[3]
                ),
                0,
                1,
            )
        base[path] = kernel + change.reshape(kernel.shape)
    return unflatten_dict({name: jnp.asarray(x) for name, x in base.items()}, sep="/")


def _factors(adapter):
    found = {}
    for name, x in flatten_dict(adapter, sep="/").items():
        path, _, which = name.rpartition("/")
        found.setdefault(path, {})[which] = x
    return found


def test_it_is_a_language_model(model):
    assert isinstance(model, LanguageModel)
    params = jax.eval_shape(model.init, jax.random.key(0))
    axes = model.parameter_axes()
    assert trained_part(model, params).keys() == {"adapter"}
    jax.tree.map(lambda x, names: None if len(names) == x.ndim else pytest.fail(), params, axes)


def test_at_its_start_it_is_its_base_to_the_bit(model):
    params = jax.jit(model.init)(jax.random.key(0))
    policy, base = score(model, params), score(model.base, params["base"])
    np.testing.assert_array_equal(policy, base)
    # And so h is 0: reference and policy are one function of the same arrays.
    assert np.abs(np.asarray(policy)).min() > 0


def test_the_merged_model_gives_the_adapters_logits(model):
    params = adapted(model)
    whole = merged(model, params)
    found, expected = score(model, params), score(model.base, whole)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(found) - score(model.base, params["base"])).max() > 0.1
    after, expected = (
        jax.jit(m.next_token_logits)(given, PROMPT, COMPLETION, MASK)
        for m, given in ((model, params), (model.base, whole))
    )
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    ["t5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("scanned", "t5gemma"))],
    indirect=True,
)
def test_at_full_rank_the_first_update_is_that_of_full_training(model):
    scale, size = 2.0, 8
    paths = [path for path, (a, b) in model.shapes().items() if a[0] == size <= b[-1]]
    assert len(paths) >= 3
    whole = LoRA(model.base, size, scale * size, "|".join(map(re.escape, paths)))
    params = jax.jit(whole.init)(jax.random.key(3))

    def loss(model, params):
        return jnp.sum(model.score(params, PROMPT, COMPLETION, MASK)) / 7.0

    full = jax.jit(jax.grad(partial(loss, model.base)))(params["base"])
    own = _factors(jax.jit(jax.grad(partial(loss, whole)))(params)["adapter"])
    for path, factors in _factors(params["adapter"]).items():
        np.testing.assert_array_equal(own[path]["a"], 0.0)
        # A step of gradient descent takes A dB, times the scale, from W.
        layers = "ilr,rlo->ilo" if factors["a"].ndim == 3 else "ir,ro->io"
        step = scale * np.einsum(layers, factors["a"], own[path]["b"])
        expected = np.asarray(flatten_dict(full, sep="/")[path])
        np.testing.assert_allclose(
            step.reshape(expected.shape), scale**2 * expected, rtol=1e-4, atol=1e-5
        )
        assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", ["t5", *SLOW])
def test_policy_and_reference_are_drawn_in_one_pass_as_in_two(name):
    model = LoRA(BASES[name], rank=3, targets=".*")
    policy = adapted(model)
    reference = {**policy, "adapter": moved(policy["adapter"], 2)}
    given = (PROMPT, jnp.asarray([[0.0, 0.3, 1.0]] * 3), jax.random.key(5))
    apart = sample(model, Strategy(6), policy, reference, *given)
    together = sample(model, Strategy(6), policy, trained_part(model, reference), *given)
    np.testing.assert_array_equal(together.completion, apart.completion)
    np.testing.assert_allclose(together.policy_logprob, apart.policy_logprob, atol=1e-5)
    np.testing.assert_allclose(together.partner_logprob, apart.partner_logprob, atol=1e-5)
    taught = jax.jit(model.score)(reference, PROMPT, apart.completion, apart.mask)
    np.testing.assert_allclose(together.partner_logprob, taught, atol=1e-4)
    assert np.abs(np.asarray(apart.policy_logprob - apart.partner_logprob)).max() > 0.01


def test_the_sampler_finds_that_the_base_is_one(monkeypatch):
    model = LoRA(BASES["t5"], rank=3)
    policy, given = adapted(model), []
    other = {**policy, "adapter": moved(policy["adapter"], 2)}
    copied = {**other, "base": jax.tree.map(jnp.copy, other["base"])}

    def sample(model, strategy, policy, partner, *rest):
        given.append(partner)
        return Rollout(*[None] * 6)

    monkeypatch.setattr("po_jax.sampling.sampler.sample", sample)
    sampler = Sampler(model, Strategy(3), make_partitioner(devices=jax.devices()[:1]), 3)
    for partner in (other, copied):
        sampler.draw(policy, partner, np.asarray(PROMPT), (0.5, 0.5), jax.random.key(0))
    assert [set(partner) for partner in given] == [{"adapter"}, {"adapter", "base"}]


def test_the_base_is_kept_in_its_own_dtype():
    model = LoRA(BASES["t5"], base_dtype="bfloat16")
    params = jax.eval_shape(model.init, jax.random.key(0))
    dtypes = {n: x.dtype.name for n, x in flatten_dict(params["base"], sep="/").items()}
    kept = {n for n, dtype in dtypes.items() if dtype == "bfloat16"}
    assert kept == {n for n in dtypes if n.endswith(("/kernel", "/embedding"))}
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params["adapter"]))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rank": 0}, "LoRA.rank: expected at least 1, got 0"),
        ({"rank": 9}, "expected at most 8, the rank of .*query/kernel, got 9"),
        ({"alpha": 0.0}, "LoRA.alpha: expected more than 0"),
        ({"dropout_rate": 1.0}, "LoRA.dropout_rate"),
        ({"targets": "attention"}, "LoRA.targets: expected to match the path of a kernel"),
        ({"base_dtype": "int8"}, "LoRA.base_dtype: expected float32 or bfloat16, got 'int8'"),
    ],
)
def test_what_it_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        LoRA(**{"base": BASES["t5"], **options})


def test_dropout_is_of_training_alone():
    model = LoRA(BASES["t5"], rank=3, targets=".*", dropout_rate=0.5)
    params = adapted(model)
    given = (params, PROMPT, COMPLETION[:, 0])
    logits = jax.jit(model.logits)
    first, second = (logits(*given, dropout_key=jax.random.key(k)) for k in (0, 1))
    none = LoRA(BASES["t5"], rank=3, targets=".*")
    np.testing.assert_array_equal(logits(*given), jax.jit(none.logits)(*given))
    assert np.abs(np.asarray(first - second)).max() > 1e-3


def test_frozen_parts_are_all_but_the_adapter():
    model = LoRA(BASES["t5"])
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert frozen_part(model, params) == {"base": params["base"]}
    assert frozen_part(model.base, params["base"]) == {}
    assert trained_part(model.base, params["base"]) is params["base"]
