"""Adafactor and AdamW against T5X's own numbers and closed forms."""

import dataclasses
import inspect

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from po_jax.training.optimizers import Adafactor, Slots, adamw


def tree(flat):
    return flax.traverse_util.unflatten_dict({tuple(k.split("/")): v for k, v in flat.items()})


def flat_slots(states):
    """Adafactor's slots under T5X's names, `path/v_row` and so on."""
    flat = flax.traverse_util.flatten_dict(states, is_leaf=lambda _, x: isinstance(x, Slots))
    return {
        f"{'/'.join(path)}/{name}": getattr(slots, name)
        for path, slots in flat.items()
        for name in ("v_row", "v_col", "v", "m")
    }


def test_adafactor_agrees_with_t5x_on_arrays(golden):
    """Three steps from given gradients; the one [130, 150] array is factored."""
    arrays = np.load(golden / "adafactor_arrays.npz")
    names = ["matrix", "wide", "vector", "scalarish", "tiny"]

    def read(tag):
        return {name: jnp.asarray(arrays[f"{tag}:{name}"]) for name in names}

    optimizer = Adafactor(0.01)
    params, state = read("p0"), optimizer.init(read("p0"))
    for step in (1, 2, 3):
        updates, state = optimizer.update(read(f"g{step}"), state, params)
        params = optax.apply_updates(params, updates)
        for name, expected in read(f"p{step}").items():
            np.testing.assert_allclose(params[name], expected, atol=1e-6, err_msg=name)
    slots = flat_slots(state.param_states)
    assert len(slots) == 20
    for name, value in slots.items():
        np.testing.assert_allclose(value, arrays[f"s3:{name}"], rtol=1e-5, err_msg=name)


class TestStackedWeights:
    """A stack of layers [embed 3, layers 2, heads 5, kv 7] against each layer on its own."""

    axes = {"stack": ("embed", "layers", "heads", "kv")}

    def stack(self):
        keys = jax.random.split(jax.random.key(0), 4)
        return [{"stack": jax.random.normal(key, (3, 2, 5, 7))} for key in keys]

    def test_stacked_layers_are_updated_as_if_alone(self):
        params, *grads = self.stack()
        scale = jnp.asarray([1.0, 100.0]).reshape(1, 2, 1, 1)
        params, grads = jax.tree.map(lambda x: scale * x, (params, grads))
        stacked = Adafactor(0.1, self.axes)
        alone = Adafactor(0.1, min_dim_size_to_factor=1)
        layers = [{"stack": params["stack"][:, i].reshape(3, 35)} for i in range(2)]
        state, states = stacked.init(params), [alone.init(layer) for layer in layers]
        stacked_update, alone_update = jax.jit(stacked.update), jax.jit(alone.update)
        for grad in grads:
            updates, state = stacked_update(grad, state, params)
            params = optax.apply_updates(params, updates)
            for i in range(2):
                layer_grad = {"stack": grad["stack"][:, i].reshape(3, 35)}
                updates, states[i] = alone_update(layer_grad, states[i], layers[i])
                layers[i] = optax.apply_updates(layers[i], updates)
        expected = jnp.stack([layer["stack"].reshape(3, 5, 7) for layer in layers], axis=1)
        np.testing.assert_allclose(params["stack"], expected, rtol=1e-5)
        assert state.param_states["stack"].v_row.shape == (3, 2)
        assert state.param_states["stack"].v_col.shape == (2, 5, 7)

    def test_axes_are_needed_and_must_be_known(self):
        params, *_ = self.stack()
        with pytest.raises(ValueError, match=r"shape \(3, 2, 5, 7\), got None"):
            Adafactor(0.1).init(params)
        with pytest.raises(ValueError, match="got \\['colour'\\]"):
            Adafactor(0.1, {"stack": ("embed", "layers", "heads", "colour")}).init(params)


def test_adafactor_follows_a_schedule_of_its_step():
    params = {"w": jnp.ones((3, 5))}
    optimizer = Adafactor(lambda step: 0.1 * step.astype(jnp.float32))
    state = optimizer.init(params)
    first, state = optimizer.update(params, state, params)
    second, state = optimizer.update(params, state, params)
    np.testing.assert_allclose(first["w"], 0.0)
    np.testing.assert_allclose(second["w"], -0.1, rtol=1e-5)
    assert state.step == 2


def test_adafactor_is_a_pair_of_optax_that_can_be_chained():
    """Chained with an identity and a doubling, its own update comes out, doubled."""
    params = {"w": jnp.arange(15.0).reshape(3, 5)}
    optimizer = Adafactor(0.1, beta1=0.9)
    assert isinstance(optimizer, optax.GradientTransformation)
    init, update = optimizer
    alone, _ = update(params, init(params), params)
    chain = optax.chain(optax.identity(), optimizer, optax.scale(2.0))
    chained, _ = chain.update(params, chain.init(params), params)
    np.testing.assert_array_equal(chained["w"], 2.0 * alone["w"])
    assert np.abs(alone["w"]).max() > 0.0


def test_adafactor_is_made_of_its_settings():
    one, params = Adafactor(0.1), {"w": jnp.ones((3, 5))}
    other = dataclasses.replace(one, learning_rate=0.2)
    assert other == Adafactor(0.2) != one
    updates = [x.update(params, x.init(params), params)[0]["w"] for x in (one, other)]
    np.testing.assert_array_equal(2.0 * updates[0], updates[1])
    assert {"learning_rate", "axes", "epsilon2"} <= inspect.signature(Adafactor).parameters.keys()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.learning_rate = 0.3


def test_adafactor_decays_weights():
    """Gradient 0: only the decay remains."""
    params = {"w": jnp.full((3, 5), 2.0)}
    optimizer = Adafactor(0.1, weight_decay_rate=0.01)
    updates, _ = optimizer.update({"w": jnp.zeros((3, 5))}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.02, rtol=1e-5)


@pytest.mark.parametrize(
    ("axes", "decayed"),
    [
        (None, {"kernel": True, "scales": True, "scale": False}),
        (
            {"kernel": ("embed", "mlp"), "scales": ("embed", "layers"), "scale": ("embed",)},
            {"kernel": True, "scales": False, "scale": False},
        ),
    ],
)
def test_adamw_decays_weights_but_not_norms(axes, decayed, relaxed):
    params = {"kernel": jnp.ones((3, 5)), "scales": jnp.ones((3, 2)), "scale": jnp.ones((3,))}
    optimizer = adamw(0.1, axes, weight_decay=0.5)
    zeros = jax.tree.map(jnp.zeros_like, params)
    with relaxed():
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for name, update in updates.items():
        np.testing.assert_allclose(update, -0.05 if decayed[name] else 0.0, rtol=1e-5)


def test_adamw_first_step_is_the_sign_of_the_gradient_times_the_rate(relaxed):
    params = {"w": jnp.zeros((2, 3))}
    grads = {"w": jnp.asarray([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])}
    optimizer = adamw(0.1)
    with relaxed():
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 * jnp.sign(grads["w"]), rtol=1e-5)


def test_a_second_call_compiles_nothing(relaxed):
    params = {"w": jnp.ones((3, 5))}
    for optimizer in (Adafactor(0.1, beta1=0.9, weight_decay_rate=0.1), adamw(0.1)):
        update = jax.jit(optimizer.update)
        with relaxed():
            updates, state = update(params, optimizer.init(params), params)
            update(updates, state, params)
        assert update._cache_size() == 1


@pytest.mark.parametrize("make", [Adafactor, adamw])
@pytest.mark.parametrize("rate", [-1e-3, float("nan"), float("inf")])
def test_a_rate_is_not_negative(make, rate):
    message = f"{make.__name__}.learning_rate: expected a finite rate, 0 or more, got {rate}"
    with pytest.raises(ValueError, match=message):
        make(rate)
