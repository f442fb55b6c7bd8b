"""The training step: meshes and micro-batches agree; nothing recompiles, copies or calls back."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from po_jax.losses import objectives, pairwise
from po_jax.metrics import Mean, Sum
from po_jax.models import PolicyModel
from po_jax.partitioning import make_partitioner
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.optimizers import Adafactor
from po_jax.training.state import TrainState
from po_jax.training.step import make_train_step
from po_jax.types import PreferenceBatch
from tests.training.fresh import fresh_state

KEY = jax.random.key(7)
MODEL = T5LM(
    T5Config(
        vocab_size=24,
        emb_dim=8,
        num_heads=4,
        head_dim=3,
        mlp_dim=16,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout_rate=0.0,
    )
)
POLICY = PolicyModel(
    language_model=MODEL,
    objective=partial(objectives.contrastive, loss=pairwise.ipo, tau=0.5),
)
AXES = {"w": ("embed", "mlp"), "b": ("mlp",)}
SGD = optax.sgd(1.0)  # its update is the gradient


def one_device():
    return make_partitioner(1, devices=jax.devices()[:1])


def pairs() -> PreferenceBatch:
    """Eight pairs of completions of 1 to 5 tokens, on the host."""
    random = np.random.default_rng(7)
    length = random.integers(1, 6, (8, 2))
    mask = np.arange(5) < length[..., None]
    return PreferenceBatch(
        prompt=random.integers(2, 24, (8, 7), np.int32),
        completion=np.where(mask, random.integers(2, 24, (8, 2, 5), np.int32), 0),
        mask=mask,
        preference=random.uniform(size=8).astype(np.float32),
        reference_logprob=-3.0 * length.astype(np.float32),
    )


@dataclasses.dataclass(frozen=True)
class Regression:
    """A weighted least-squares model small enough to compile in no time.

    Attributes:
      summed: whether the loss is a sum over examples rather than their weighted mean.
    """

    summed: bool = False
    has_dropout = True

    def loss_fn(self, params, batch, dropout_rng):
        error = batch["x"] @ params["w"] + params["b"][None] - batch["y"]
        noise = jax.random.uniform(dropout_rng)
        total = jnp.sum(jnp.square(error), axis=1)
        loss = Mean.of(total, batch["weight"])
        if self.summed:
            loss = Sum(loss.total)
        return loss.compute(), {"loss": loss, "noise": Sum(noise)}


def regression_data():
    random = np.random.default_rng(8)
    x, y = (random.normal(size=(8, n)).astype(np.float32) for n in (6, 4))
    return {"x": x, "y": y, "weight": np.arange(8, dtype=np.float32)}


def regression(partitioner=None, model=Regression(), optimizer=SGD, average=False, **options):
    """A fresh state and the step that takes it."""

    def init(key):
        return {"w": jax.random.normal(key, (6, 4)), "b": jnp.ones((4,))}

    partitioner = partitioner or one_device()
    state, shardings = fresh_state(init, AXES, optimizer, partitioner, average=average)
    return state, make_train_step(model, optimizer, partitioner, shardings, **options)


def assert_trees_close(actual, expected, atol):
    actual, expected = jax.device_get((actual, expected))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), actual, expected)


def t5_step(partitioner, **options):
    """Parameters and metrics of a T5 policy after one step."""
    axes = POLICY.parameter_axes()
    state, shardings = fresh_state(MODEL.init, axes, SGD, partitioner)
    step = make_train_step(POLICY, SGD, partitioner, shardings, **options)
    state, metrics = step(state, partitioner.distribute(pairs()), KEY)
    return state.params, {name: metric.compute() for name, metric in metrics.items()}


@pytest.fixture(scope="module")
def expected():
    return t5_step(one_device())


@pytest.mark.parametrize(
    ("num_partitions", "dims", "micro_batches"),
    [(1, (1, 1), 1), (4, (1, 1), 4), (2, (2, 2), 2)],
)
def test_every_mesh_gives_the_gradient_of_one_device(num_partitions, dims, micro_batches, expected):
    """(8, 1), (2, 4) and (4, 2) devices; the last also sharded in two dimensions."""
    partitioner = make_partitioner(num_partitions, *dims)
    params, metrics = t5_step(partitioner, micro_batches=micro_batches)
    assert_trees_close(params, expected[0], atol=1e-5)
    for name, value in expected[1].items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    kernel = params["encoder"]["layers_0"]["mlp"]["wi"]["kernel"]
    assert kernel.addressable_shards[0].data.shape[1] == 16 // num_partitions


@pytest.mark.parametrize("summed", [False, True])
def test_micro_batches_do_not_change_the_update(summed):
    """Rows weigh 0 to 7, so that the micro-batches weigh differently."""
    model = Regression(summed)
    results = []
    for micro_batches in (1, 2, 4):
        state, step = regression(model=model, micro_batches=micro_batches)
        state, metrics = step(state, regression_data(), KEY)
        results.append((state.params, metrics["loss"].compute()))
    assert_trees_close(results[1], results[0], atol=1e-4 if summed else 1e-5)
    assert_trees_close(results[2], results[0], atol=1e-4 if summed else 1e-5)


def test_the_gradient_is_that_of_weighted_least_squares():
    data = {name: value.astype(np.float64) for name, value in regression_data().items()}
    state, step = regression(micro_batches=4)
    before = jax.device_get(state.params)
    state, metrics = step(state, regression_data(), KEY)
    error = data["x"] @ before["w"] + before["b"] - data["y"]
    share = data["weight"][:, None] / data["weight"].sum()
    gradient = {"w": 2 * data["x"].T @ (share * error), "b": (2 * share * error).sum(axis=0)}
    assert_trees_close(state.params, jax.tree.map(np.subtract, before, gradient), atol=1e-5)
    np.testing.assert_allclose(
        metrics["gradient_norm"].compute(), optax.tree.norm(gradient), rtol=1e-5
    )


def test_the_step_compiles_once_donates_its_state_and_calls_no_host():
    partitioner = make_partitioner(2)
    state, step = regression(
        partitioner,
        optimizer=Adafactor(0.01, AXES, beta1=0.9),
        average=True,
        average_decay=0.5,
        max_gradient_norm=1.0,
        micro_batches=2,
    )
    data = partitioner.distribute(regression_data())
    text = step.lower(state, data, KEY).compile().as_text()
    assert not any(word in text for word in ("callback", "infeed", "outfeed"))
    old = jax.tree.leaves(state)
    state, _ = step(state, data, KEY)
    assert all(leaf.is_deleted() for leaf in old)
    state, metrics = step(state, data, KEY)
    assert step._cache_size() == 1
    assert state.step == 2 and metrics["non_finite"].compute() == 0


def test_gradients_are_clipped_by_their_global_norm():
    state, step = regression()
    before = jax.device_get(state.params)
    _, metrics = step(state, regression_data(), KEY)
    norm = float(metrics["gradient_norm"].compute())
    for limit in (0.5 * norm, 2.0 * norm):
        state, step = regression(max_gradient_norm=limit)
        state, metrics = step(state, regression_data(), KEY)
        update = jax.tree.map(np.subtract, before, jax.device_get(state.params))
        np.testing.assert_allclose(optax.tree.norm(update), min(limit, norm), rtol=1e-4)
        np.testing.assert_allclose(metrics["gradient_norm"].compute(), norm, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_losses_that_are_not_finite_are_counted(value):
    state, step = regression()
    data = regression_data()
    data["y"][3, 1] = value
    _, metrics = step(state, data, KEY)
    assert metrics["non_finite"].compute() == 1


def test_the_moving_average_follows_the_parameters():
    state, step = regression(average=True, average_decay=0.75)
    start = jax.device_get(state.average)
    state, _ = step(state, regression_data(), KEY)
    expected = jax.tree.map(
        lambda old, new: 0.75 * old + 0.25 * new, start, jax.device_get(state.params)
    )
    assert_trees_close(state.average, expected, atol=1e-6)


@pytest.mark.parametrize(("average", "decay"), [(True, None), (False, 0.5)])
def test_an_average_and_its_decay_come_together(average, decay):
    state, step = regression(average=average, average_decay=decay)
    with pytest.raises(ValueError, match=f"if and only if average_decay .*, got .*{decay}"):
        step(state, regression_data(), KEY)


def test_a_batch_that_cannot_be_shared_out_is_refused():
    state, step = regression(make_partitioner(2), micro_batches=3)
    with pytest.raises(ValueError, match=r"multiple of 4 .* x 3 \(micro-batches\), got 8"):
        step(state, regression_data(), KEY)


def test_no_micro_batch_is_named():
    with pytest.raises(ValueError, match="expected 1 micro-batch or more, got 0"):
        make_partitioner(8).check_batch(8, 0)


def test_dropout_depends_on_the_root_key_and_the_step_alone():
    state, step = regression(micro_batches=2)
    state, first = step(state, regression_data(), KEY)
    _, second = step(state, regression_data(), KEY)
    state, _ = regression()
    state = TrainState(jnp.ones((), jnp.int32), state.params, state.optimizer_state)
    _, again = step(state, regression_data(), KEY)
    assert first["noise"].total != second["noise"].total == again["noise"].total
