"""The supervised model against T5X: losses, metrics, gradients, scores and Adafactor steps."""

import dataclasses
from functools import partial
import json
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from po_jax.models import SupervisedModel
from po_jax.t5.language_model import T5LM
from po_jax.training.optimizers import Adafactor
from tests.t5.test_network import VERSIONS, golden_config, load_tree, packing, scanned


def flatten(params):
    return flax.traverse_util.flatten_dict(params, sep="/")


@dataclasses.dataclass(frozen=True)
class Case:
    """One of T5X's two models, its numbers, and its network compiled once for each batch."""

    folder: Path
    language_model: T5LM
    params: dict
    batches: dict
    forward: dict

    def model(self, **options):
        return SupervisedModel(language_model=self.language_model, **options)

    def gradient(self, model, params, kind):
        """(loss, metrics), gradient: the loss differentiated apart from the network."""
        logits, pull_back = self.forward[kind](params)
        (loss, metrics), cotangent = jax.value_and_grad(model.loss_of_logits, has_aux=True)(
            logits, self.batches[kind]
        )
        return (loss, metrics), APPLY(pull_back, cotangent)[0]


APPLY = jax.jit(lambda function, *args: function(*args))


@pytest.fixture(scope="module", autouse=True)
def optimised():
    """T5X's numbers come from optimised code, and Adafactor divides by gradients near 0."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", params=VERSIONS)
def case(request, golden):
    folder = golden / request.param
    language_model = T5LM(golden_config(golden, request.param))
    return make_case(golden, folder, language_model, load_tree(folder / "params.npz"))


def make_case(golden, folder, language_model, params):
    network = SupervisedModel(language_model=language_model).logits
    batches, forward = {}, {}
    for kind in ("padded", "packed"):
        batches[kind] = jax.tree.map(jnp.asarray, packing(golden, kind))
        forward[kind] = jax.jit(partial(jax.vjp, partial(network, batch=batches[kind])))
    return Case(folder, language_model, params, batches, forward)


def test_losses_metrics_and_gradients_are_those_of_t5x(case):
    """Padded and packed, seven settings of smoothing, z-loss and normalising factor each."""
    settings = json.loads((case.folder / "loss_and_grads.json").read_text())
    whole = np.load(case.folder / "grads_ls0.1_z1e-4.npz")
    assert len(settings) == 14
    for setting in settings:
        names = ("label_smoothing", "z_loss", "loss_normalizing_factor")
        options = {name: setting[name] for name in names}
        kind = setting["batch"]
        (loss, metrics), grads = case.gradient(case.model(**options), case.params, kind)
        np.testing.assert_allclose(loss, setting["loss"], rtol=1e-5)
        for name in ("loss", "z_loss", "cross_ent_loss", "accuracy"):
            np.testing.assert_allclose(
                metrics[name].compute(), setting["metrics"][name], rtol=1e-5, err_msg=name
            )
        for name, grad in flatten(jax.device_get(grads)).items():
            np.testing.assert_allclose(
                np.linalg.norm(grad), setting["grad_norm"][name], rtol=1e-4, err_msg=name
            )
            if tuple(options.values()) == (0.1, 1e-4, None):
                expected = whole[f"{kind}:{name}"]
                tolerance = 1e-5 * np.abs(expected).max()
                np.testing.assert_allclose(grad, expected, atol=tolerance, err_msg=name)


def test_scores_are_those_of_t5x(case):
    expected = np.load(case.folder / "forward.npz")["padded_sequence_scores"]
    scores = jax.jit(case.model().score_batch)(case.params, case.batches["padded"])
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_greedy_predictions_are_those_of_t5x(case):
    predictions, aux = case.model().predict_batch_with_aux(case.params, case.batches["padded"])
    expected = np.load(case.folder / "decodes.npz")["greedy_topk1:decodes"]
    np.testing.assert_array_equal(predictions, expected)
    assert aux["scores"].shape == (4,)


RULES = {
    "finetune": {},
    "finetune_step1000": {},
    "factored16": {"min_dim_size_to_factor": 16},
    "momentum_wd_clipnorm": {
        "min_dim_size_to_factor": 16, "beta1": 0.9, "weight_decay_rate": 0.01,
    },
}  # fmt: skip


def test_three_adafactor_steps_are_those_of_t5x(case):
    """Every variant; T5X's numbers with momentum, decay and clipping are of T5 1.1 only."""
    for tag, rules in RULES.items():
        clipped = tag == "momentum_wd_clipnorm"
        if clipped and case.folder.name == "t5_1_0":
            continue
        late = tag == "finetune_step1000"
        model = case.model(z_loss=1e-4, loss_normalizing_factor=48 if late else None)
        optimizer = Adafactor(0.001, model.parameter_axes(), **rules)
        if clipped:
            optimizer = optax.chain(optax.clip_by_global_norm(1.0), optimizer)
        take_three_steps(case, model, optimizer, tag, 1000 if late else 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_adafactor_on_scanned_layers_is_that_of_t5x(golden, version):
    """Rank 3 and 4: factored along the axes that their names tell."""
    folder = golden / version
    module, params = scanned(golden, version, load_tree(folder / "params.npz"))
    case = make_case(golden, folder, T5LM(module.config), params)
    model = case.model(z_loss=1e-4, loss_normalizing_factor=None)
    optimizer = Adafactor(0.001, model.parameter_axes())
    take_three_steps(case, model, optimizer, "scalable_finetune", 0)


def take_three_steps(case, model, optimizer, tag, first_step):
    params, state = case.params, optimizer.init(case.params)
    if first_step:
        state = state.replace(step=jnp.asarray(first_step))
    expected = np.load(case.folder / "adafactor" / f"{tag}_params.npz")
    update = jax.jit(optimizer.update)
    for i, kind in enumerate(("padded", "packed", "padded"), start=1):
        _, grads = case.gradient(model, params, kind)
        updates, state = update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        for name, value in flatten(params).items():
            if f"step{i}:{name}" in expected:
                reference = expected[f"step{i}:{name}"]
                np.testing.assert_allclose(value, reference, atol=2e-6, err_msg=f"{i} {name}")
    slots = flatten((state[-1] if isinstance(state, tuple) else state).param_states)
    for name, value in np.load(case.folder / "adafactor" / f"{tag}_state_after_3.npz").items():
        path, slot = name.rsplit("/", 1)
        ours = getattr(slots[path], slot)
        np.testing.assert_allclose(ours, value, rtol=1e-3, atol=1e-6, err_msg=name)
