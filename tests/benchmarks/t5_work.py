"""po_jax's part in benchmarks at T5's sizes: a model of random parameters, drawing and a step."""

from functools import partial

import jax
import jax.numpy as jnp

from po_jax.logprobs import sequence_logprob
from po_jax.losses import objectives, pairwise
from po_jax.models import PolicyModel
from po_jax.partitioning import make_partitioner
from po_jax.sampling import Strategy, sample
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from po_jax.training.optimizers import adamw
from po_jax.training.step import make_train_step
from po_jax.types import PreferenceBatch
from tests.training.fresh import fresh_state

SIZES = {
    "mini": {"emb_dim": 256, "num_heads": 4, "mlp_dim": 1024, "layers": 4},
    "small": {"emb_dim": 512, "num_heads": 8, "mlp_dim": 2048, "layers": 6},
    "base": {"emb_dim": 768, "num_heads": 12, "mlp_dim": 3072, "layers": 12},
    "large": {"emb_dim": 1024, "num_heads": 16, "mlp_dim": 4096, "layers": 24},
}
VOCAB, HEAD_DIM, BETA, TAU = 32128, 64, 0.125, 0.1


def network(emb_dim, num_heads, mlp_dim, layers, **options):
    """T5 1.0 of one of the `SIZES`, without dropout; options are those of `T5Config`."""
    return T5LM(
        T5Config(
            vocab_size=VOCAB,
            emb_dim=emb_dim,
            num_heads=num_heads,
            head_dim=HEAD_DIM,
            mlp_dim=mlp_dim,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
            logits_via_embedding=True,
            dropout_rate=0.0,
            **options,
        )
    )


class Ours:
    """T5 1.0 as policy and reference on one device.

    Args:
      emb_dim: width; with the heads, the feed-forward width and the layers of `SIZES`.
      num_heads: attention heads of 64.
      mlp_dim: feed-forward width.
      layers: of the encoder, and of the decoder.
      init: makes parameters of the model from a key; the model's own if None.
      **options: of `T5Config`.
    """

    def __init__(self, emb_dim, num_heads, mlp_dim, layers, init=None, **options):
        self.model = network(emb_dim, num_heads, mlp_dim, layers, **options)
        init = self.model.init if init is None else partial(init, self.model)
        policy = PolicyModel(
            language_model=self.model,
            objective=partial(objectives.contrastive, loss=pairwise.ipo, tau=TAU),
        )
        partitioner = make_partitioner(1, devices=jax.devices()[:1])
        optimizer = adamw(1e-5)
        self.reference = jax.jit(init)(jax.random.key(1))
        self.state, shardings = fresh_state(init, policy.parameter_axes(), optimizer, partitioner)
        self.update = make_train_step(policy, optimizer, partitioner, shardings)
        self.score = jax.jit(self.model.score)
        self.key = jax.random.key(2)

    def sampling(self, prompt, completion):
        length = completion.shape[-1]
        strategy = Strategy(length, min_length=length)
        beta = jnp.full((len(prompt), 1), BETA)
        args = (self.state.params, self.reference, jnp.asarray(prompt), beta, self.key)
        jax.block_until_ready(sample(self.model, strategy, *args))

    def step(self, prompt, completion):
        prompt, completion = jnp.asarray(prompt), jnp.asarray(completion)
        mask = completion > 0
        reference = sequence_logprob(self.score(self.reference, prompt, completion, mask), mask)
        batch = PreferenceBatch(prompt, completion, mask, jnp.ones(len(prompt)), reference)
        self.state, metrics = self.update(self.state, batch, self.key)
        jax.block_until_ready(metrics)


def work(emb_dim, num_heads, mlp_dim, layers, *, batch, prompt, completion, itemsize):
    """GFLOP of the matrix products of an IPO step; GB read for one completion of each."""
    width = HEAD_DIM * num_heads
    attention, feed_forward = 4 * emb_dim * width, 2 * emb_dim * mlp_dim
    encoder = decoder = layers * (attention + feed_forward)
    cross = layers * 2 * emb_dim * width  # Queries and outputs; keys and values: once a prompt.
    head = VOCAB * emb_dim
    source, target = batch * prompt, 2 * batch * completion
    products = source * (encoder + cross) + target * (decoder + cross + head)
    # Logits and mixing, each 2 x length x width; a causal position sees half of the targets.
    scores = layers * 2 * width * (source * prompt + target * (completion / 2 + prompt))
    # Forward and backward of the policy (3 passes) and the reference's forward.
    flops = 2 * (products + scores) * 4
    caches = batch * layers * 2 * width * (prompt + completion / 2)
    read = 2 * completion * itemsize * (decoder + cross + head + caches)
    return flops / 1e9, read / 1e9
