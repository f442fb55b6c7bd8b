"""The opponents' network: a T5 1.0 of transformers with random parameters."""

import transformers

from tests.benchmarks.real_lengths import HEAD_DIM, VOCAB


def fresh(emb_dim: int, num_heads: int, mlp_dim: int, layers: int):
    """One of this size, without dropout."""
    config = transformers.T5Config(
        vocab_size=VOCAB,
        d_model=emb_dim,
        d_kv=HEAD_DIM,
        d_ff=mlp_dim,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=num_heads,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config)
