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
import seqio
import tensorflow as tf

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


def test_batches_that_t5x_makes_by_the_feature_converter(case, golden):
    """As T5X's trainer asks for them: from its examples, packed, to its loss."""
    inputs = json.loads((golden / "inputs" / "examples.json").read_text())
    examples = [
        {"inputs": np.int32(source), "targets": np.int32(target)}
        for source, target in inputs["packed"]
    ]
    shape = tf.TensorSpec([None], tf.int32)
    dataset = tf.data.Dataset.from_generator(
        lambda: examples, output_signature={"inputs": shape, "targets": shape}
    )
    model = case.model(
        loss_normalizing_factor=None, feature_converter_cls=seqio.EncDecFeatureConverter
    )
    convert = model.FEATURE_CONVERTER_CLS(pack=True, use_custom_packing_ops=False)
    (batch,) = convert(dataset, inputs["lengths"]["packed"]).batch(8).as_numpy_iterator()
    assert batch.keys() == case.batches["packed"].keys()
    for name, expected in case.batches["packed"].items():
        np.testing.assert_array_equal(batch[name], expected, name)
    logits, _ = case.forward["packed"](case.params)
    loss, _ = model.loss_of_logits(logits, jax.tree.map(jnp.asarray, batch))
    settings = json.loads((case.folder / "loss_and_grads.json").read_text())
    (expected,) = (s["loss"] for s in settings if s["batch"] == "packed" and s["z_loss"] == 0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert not model.module.scan_layers


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
        "min_dim_size_to_factor": 16,
        "beta1": 0.9,
        "weight_decay_rate": 0.01,
    },
}


def test_three_adafactor_steps_are_those_of_t5x(case):
    """Every variant on T5 1.1; on T5 1.0 that of fine-tuning."""
    for tag in RULES if case.folder.name == "t5_1_1" else ["finetune"]:
        rules, clipped = RULES[tag], tag == "momentum_wd_clipnorm"
        late = tag == "finetune_step1000"
        model = case.model(z_loss=1e-4, loss_normalizing_factor=48 if late else None)
        optimizer = Adafactor(0.001, model.parameter_axes(), **rules)
        if clipped:
            optimizer = optax.chain(optax.clip_by_global_norm(1.0), optimizer)
        take_three_steps(case, model, optimizer, tag, 1000 if late else 0)


@pytest.mark.slow
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
    for kind in ("padded", "packed", "padded"):
        _, grads = case.gradient(model, params, kind)
        updates, state = update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for name, value in flatten(params).items():
        np.testing.assert_allclose(value, expected[f"step3:{name}"], atol=2e-6, err_msg=name)
    slots = flatten((state[-1] if isinstance(state, tuple) else state).param_states)
    for name, value in np.load(case.folder / "adafactor" / f"{tag}_state_after_3.npz").items():
        path, slot = name.rsplit("/", 1)
        ours = getattr(slots[path], slot)
        np.testing.assert_allclose(ours, value, rtol=1e-3, atol=1e-6, err_msg=name)
