"""What cannot fit is refused before anything is compiled, with the memory that it would need."""

import jax
import jax.numpy as jnp
import optax
import pytest

from po_jax.memory import require_memory
from po_jax.models.supervised import SupervisedModel
from po_jax.partitioning import make_partitioner
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.start import Start


def test_an_embedding_of_a_million_millions():
    sizes = {"emb_dim": 16, "num_heads": 2, "head_dim": 4, "mlp_dim": 8}
    config = T5Config(10**12, **sizes, num_encoder_layers=1, num_decoder_layers=1)
    # Embedding and head, float32, and Adam's two moments of each: 3 x 2 x 16e12 x 4 bytes.
    expected = r"got 357627.\d GiB, the largest array of shape \(.*1000000000000.*\)"
    with pytest.raises(ValueError, match=f"parameters and optimiser: .*{expected}"):
        Start(
            SupervisedModel(language_model=T5LM(config)),
            optax.adamw(1e-3),
            make_partitioner(devices=jax.devices()[:1]),
            jax.random.key(0),
            average=False,
            checkpoint_path=None,
        )


def test_a_shard_counts_by_its_own_size():
    mesh = jax.sharding.Mesh(jax.devices()[:4], ("data",))
    spec = jax.sharding.PartitionSpec("data")
    sharding = jax.sharding.NamedSharding(mesh, spec)
    kernel = jax.ShapeDtypeStruct((2**44, 3), jnp.bfloat16, sharding=sharding)
    # 2^44 x 3 x 2 bytes over 4 devices: 24576 GiB each.
    with pytest.raises(ValueError, match="on each of 4 devices, got 24576.0 GiB"):
        require_memory({"kernel": kernel}, "parameters")
    small = jax.ShapeDtypeStruct((8, 3), jnp.bfloat16, sharding=sharding)
    assert require_memory({"kernel": small}, "parameters") is None
