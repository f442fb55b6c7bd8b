"""Runs that train adapters: what they keep, go on from, start from, and refuse."""

import dataclasses
from functools import partial
import json
import re
import shutil

import jax
import numpy as np
import optax
import pytest

from po_jax.checkpoints import convert, orbax
from po_jax.checkpoints.load import load_parameters, open_checkpoint
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.lora import LoRA
from po_jax.models import PolicyModel
from po_jax.partitioning import make_partitioner
from po_jax.training import optimizers
from po_jax.training.start import Start
from po_jax.training.state import TrainState
from tests.training import small_run

ONE = make_partitioner(devices=jax.devices()[:1])
BASE = dataclasses.replace(
    small_run.MODEL, config=dataclasses.replace(small_run.MODEL.config, dropout_rate=0.0)
)
MODEL = LoRA(BASE, rank=2, alpha=6.0)
OPTIMIZER = optimizers.Adafactor(0.05, beta1=0.9, multiply_by_parameter_scale=False)


def policy(model):
    return PolicyModel(language_model=model, objective=small_run.IPO)


def write_base(folder, seed=4):
    params = jax.jit(BASE.init)(jax.random.key(seed))
    manager = CheckpointManager(folder)
    manager.save(0, TrainState.create(params, optax.identity()))
    manager.close()
    return params


def train(folder, steps, start, model=MODEL, run=small_run.ipo_md, **options):
    given = {"save_period": 2, "optimizer": OPTIMIZER, "initial_checkpoint_path": str(start)}
    return run(folder, steps, model=policy(model), **{**given, **options})


def start_at(checkpoint, model=MODEL):
    path = None if checkpoint is None else str(checkpoint)
    key = jax.random.key(0)
    return Start(policy(model), OPTIMIZER, ONE, key, average=False, checkpoint_path=path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A base, a run of four steps on it, and its last state."""
    folder = tmp_path_factory.mktemp("adapters")
    write_base(folder / "base")
    return folder, train(folder / "run", 4, folder / "base")


def size(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def test_the_state_has_nothing_of_the_base(runs):
    _, state = runs
    adapter = sum(np.prod(a) + np.prod(b) for a, b in MODEL.shapes().values())
    assert size(state.params) == 4 * adapter
    # Two moments of each value, the places of two more for each array, and the number of steps.
    arrays = len(jax.tree.leaves(state.params))
    assert size(state.optimizer_state) == 2 * 4 * adapter + 8 * arrays + 4
    moved = [np.abs(x).max() for x in jax.tree.leaves(state.params)]
    assert len(moved) == 2 * len(MODEL.shapes()) and min(moved) > 0


def test_a_checkpoint_holds_the_adapter_and_says_whose(runs):
    folder, _ = runs
    checkpoint = folder / "run" / "checkpoint_4"
    names = orbax.read(orbax.find(open_checkpoint(checkpoint).path))
    params = {name.removeprefix("params/") for name in names if name.startswith("params/")}
    assert params == {f"adapter/{path}/{one}" for path in MODEL.shapes() for one in "ab"}
    facts = orbax.about(orbax.find(open_checkpoint(checkpoint).path)).adapter
    assert facts.base == str(folder / "base" / "checkpoint_0") and facts.scale == 3.0


def test_a_run_that_is_resumed_is_the_run_that_was_not(runs, tmp_path):
    folder, whole = runs
    train(tmp_path / "run", 2, folder / "base")
    resumed = train(tmp_path / "run", 4, folder / "base")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert small_run.records(tmp_path / "run") == small_run.records(folder / "run")


def test_its_checkpoint_is_the_model_that_adapter_and_base_make(runs):
    folder, state = runs
    prompt, words = np.asarray([[3, 4, 5, 1]]), np.asarray([[0, 6, 7]])
    whole = load_parameters(BASE, folder / "run", ONE)
    joined = load_parameters(MODEL, folder / "run", ONE)
    jax.tree.map(np.testing.assert_array_equal, joined["adapter"], state.params["adapter"])
    logits = jax.jit(BASE.logits)
    expected = jax.jit(MODEL.logits)(joined, prompt, words)
    np.testing.assert_allclose(logits(whole, prompt, words), expected, atol=1e-5)
    bare = logits(joined["base"], prompt, words)
    assert np.abs(np.asarray(bare - expected)).max() > 1e-3


def test_reference_and_policy_start_as_one(runs):
    """From a whole model it is the base; from an adapter the base with it, never without."""
    folder, state = runs
    for checkpoint in ("base", "run"):
        start = start_at(folder / checkpoint)
        policy, reference = start.join(start.parameters()), start.parameters()
        jax.tree.map(np.testing.assert_array_equal, policy, reference)
        assert policy["base"] is reference["base"]  # kept once
        given = (np.asarray([[3, 4, 1]]), np.asarray([[[5, 6, 1]]]), np.ones((1, 1, 3), bool))
        expected = load_parameters(BASE, folder / checkpoint, ONE)
        found = jax.jit(MODEL.score)(reference, *given)
        whole = jax.jit(BASE.score)(expected, *given)
        np.testing.assert_allclose(found, whole, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, reference["adapter"], state.params["adapter"])


def test_an_adapter_goes_on_from_an_adapter(runs, tmp_path):
    folder, _ = runs
    train(tmp_path / "next", 2, folder / "run", run=small_run.offline_ipo)
    checkpoint = open_checkpoint(tmp_path / "next")
    assert checkpoint.base.path == open_checkpoint(folder / "base").path
    first = small_run.records(tmp_path / "next")[0]
    # The policy is its reference before the first update.
    assert abs(first["log_ratio"]) < 1e-5 and first["margin"] < 1e-5


def test_another_base_is_refused(runs, tmp_path):
    folder, _ = runs
    shutil.copytree(folder / "base", tmp_path / "base")
    train(tmp_path / "run", 2, tmp_path / "base")
    shutil.rmtree(tmp_path / "base")
    write_base(tmp_path / "base", seed=5)
    with pytest.raises(ValueError, match="it has changed since"):
        load_parameters(BASE, tmp_path / "run", ONE)
    with pytest.raises(ValueError, match="expected AdapterFacts.*checkpoint_0"):
        train(tmp_path / "run", 3, tmp_path / "base")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ValueError, match="is an adapter; its base: .* no such path"):
        open_checkpoint(tmp_path / "run")


def test_adapters_of_another_kind_are_refused(runs, tmp_path):
    folder, _ = runs
    with pytest.raises(ValueError, match="scale.: 4.0.*got one of .*scale.: 3.0"):
        start_at(folder / "run", LoRA(BASE, rank=2, alpha=8.0)).parameters()
    with pytest.raises(ValueError, match=r"expected shape \(8, 3\) for .*, got \(8, 2\)"):
        start_at(folder / "run", LoRA(BASE, rank=3, alpha=9.0)).parameters()
    with pytest.raises(ValueError, match="expected a checkpoint for adapters"):
        start_at(None)
    with pytest.raises(ValueError, match="reference_dtype: expected None"):
        train(tmp_path, 1, folder / "base", reference_dtype="bfloat16")
    with pytest.raises(ValueError, match="Adafactor's slots to keep, got a checkpoint without"):
        convert.plan(folder / "run", convert.Target("t5x", keep_slots=True))


def test_a_resumed_run_keeps_its_rank(runs):
    folder, _ = runs
    record = json.loads((folder / "run" / "made_from.json").read_text())
    assert record["model"]["language_model"]["rank"] == 2
    with pytest.raises(ValueError, match=re.escape("rank")):
        train(folder / "run", 5, folder / "base", model=LoRA(BASE, rank=3, alpha=6.0))


def test_an_average_is_of_the_adapter_alone(tmp_path):
    write_base(tmp_path / "base")
    updates = partial(train, tmp_path / "run", 1, tmp_path / "base")
    state = updates(updates=small_run.loop.Updates(average_decay=0.5))
    assert jax.tree.structure(state.average) == jax.tree.structure(state.params)
