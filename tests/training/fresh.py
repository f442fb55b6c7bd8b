"""Fresh train states, every leaf made in its place."""

import jax

from po_jax.training.state import TrainState, state_shardings


def fresh_state(init, axes, optimizer, partitioner, *, average=False):
    """The state at step 0 of parameters that `init(key)` makes, and its shardings."""

    def create(key):
        return TrainState.create(init(key), optimizer, average=average)

    key = jax.random.key(7)
    shardings = state_shardings(jax.eval_shape(create, key), axes, partitioner)
    return jax.jit(create, out_shardings=shardings)(key), shardings
