"""One of several processes of `t5x.train`: saves the parameters that it ends with.

python -m tests.t5x.worker FOLDER PORT PROCESSES INDEX
"""

from pathlib import Path
import sys

import flax
import jax
import numpy as np


def main(folder: Path, port: int, processes: int, index: int) -> None:
    """Trains IPO-MD for five steps, each process with its rows."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_threefry_partitionable", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, index)

    from t5x import utils
    import tensorflow as tf

    from po_jax.t5x.start import partitioner_of
    from tests.t5x import harness
    from tests.t5x.cases import make_case

    mesh = harness.Mesh(processes, 1)

    def in_the_order_of_two(config, shard, shards, converter):
        """T5X's processes take turns at the rows, and samples depend on a row's place."""
        if shards == 2:
            return utils.get_dataset(config, shard, shards, converter)
        parts = [utils.get_dataset(config, index, 2, converter) for index in (0, 1)]
        return tf.data.Dataset.zip(*parts).map(
            lambda *rows: {name: tf.concat([part[name] for part in rows], 0) for name in rows[0]}
        )

    # One process comes first, and writes the checkpoints that all start from.
    case = make_case("ipo_md", folder / "checkpoints", partitioner_of(mesh))
    _, state = case.by_t5x(
        folder / f"of_{processes}", mesh, steps=5, get_dataset_fn=in_the_order_of_two
    )
    if index == 0:
        params = flax.traverse_util.flatten_dict(flax.core.unfreeze(state.params), sep="/")
        np.savez(folder / f"of_{processes}.npz", **{k: np.asarray(v) for k, v in params.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
