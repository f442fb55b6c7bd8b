"""The T5 network: encoder, decoder and the two ways to run a decoder.

`decode` runs all target positions at once (training, scoring); `prefill` and `extend` run one
position at a time against a cache (sampling). Both give the same logits. Shape letters: see
`layers.py`. Parameter trees are those of T5X's `examples/t5` and, with `scan_layers`, of
`examples/scalable_t5`.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from po_jax.partitioning import shard
from po_jax.t5 import layers
from po_jax.t5.config import T5Config
from po_jax.t5.decoder import Cache, Decoder
from po_jax.t5.encoder import Encoder
from po_jax.t5.stack import mask_bias


class Transformer(nn.Module):
    """An encoder-decoder T5 (arXiv 1910.10683) with T5X's parameter names.

    Token 0 is padding, and the decoder's first input. Dropout needs `deterministic=False` and a
    `dropout` key. Methods are called through `apply(..., method="encode")`.
    """

    config: T5Config

    def setup(self):
        cfg = self.config
        self.token_embedder = layers.Embed(cfg.vocab_size, cfg.emb_dim, cfg.dtype)
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)

    @property
    def scan_layers(self):
        """T5X's state initialiser asks the module for this."""
        return self.config.scan_layers

    def encode(self, tokens, segment_ids=None, *, deterministic=True):
        """Encodes prompts [B, S] to [B, S, E]; packed ones attend within their segment only."""
        allowed = (tokens > 0)[:, None, :]
        if segment_ids is not None:
            allowed = allowed & (segment_ids[:, :, None] == segment_ids[:, None, :])
        return self.encoder(self.token_embedder(tokens), mask_bias(allowed), deterministic)

    def hidden(
        self,
        encoded,
        encoder_mask,
        decoder_input_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        *,
        deterministic=True,
    ):
        """Decoder states [R, T, E] before the head, all target positions at once.

        Args:
          encoded: [B, S, E].
          encoder_mask: [B, S], true on tokens of the prompt.
          decoder_input_tokens: [R, T], the targets shifted right; R = B K for K completions a
            prompt, those of one prompt next to each other.
          encoder_segment_ids, decoder_segment_ids: of packed examples (R = B), or None.
          deterministic: without dropout.
        """
        length = decoder_input_tokens.shape[1]
        # Targets are padded at the end only, which causality already hides from the rest.
        causal = jnp.tri(length, dtype=bool)[None]
        cross = encoder_mask[:, None, :]
        if decoder_segment_ids is not None:
            causal = causal & (decoder_segment_ids[:, :, None] == decoder_segment_ids[:, None, :])
            cross = cross & (decoder_segment_ids[:, :, None] == encoder_segment_ids[:, None, :])
        x = self.token_embedder(decoder_input_tokens)
        return self.decoder(x, encoded, mask_bias(causal), mask_bias(cross), deterministic)

    def logits(self, hidden):
        """The output head: decoder states [..., E] to float32 logits [..., V]."""
        if self.config.logits_via_embedding:
            logits = self.token_embedder.attend(hidden)
        else:
            logits = self.decoder.logits_dense(hidden)
        return shard(logits, "batch", *(["length"] * (logits.ndim - 2)), "vocab")

    def decode(self, *args, **kwargs):
        """`logits` of `hidden`, [R, T, V]; arguments are those of `hidden`."""
        return self.logits(self.hidden(*args, **kwargs))

    def prefill(self, encoded, encoder_mask, samples, max_length):
        """An empty cache for `samples` completions of each prompt, up to `max_length` tokens."""
        cfg = self.config
        cross = self.decoder.cross_keys_values(encoded)

        def empty(keys_or_values):
            *layer_axis, batch, heads, _, width = keys_or_values.shape
            zeros = jnp.zeros((*layer_axis, batch * samples, heads, max_length, width), cfg.dtype)
            names = ("batch", "heads", "length", "kv")
            return shard(zeros, *(["layers"] * len(layer_axis)), *names)

        return Cache(
            cross=cross,
            cross_bias=mask_bias(encoder_mask[:, None, :]),
            own=jax.tree.map(empty, cross),
            index=jnp.zeros((), jnp.int32),
        )

    def extend(self, cache, tokens):
        """Feeds one token a row, [R], and returns the logits [R, V] of the next, and the cache."""
        x, cache = self.decoder.step(self.token_embedder(tokens[:, None]), cache)
        return self.logits(x)[:, 0], cache

    def __call__(
        self,
        encoder_input_tokens,
        decoder_input_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        *,
        deterministic=True,
    ):
        """Logits [B, T, V], float32, of T5X's encoder-decoder features."""
        encoded = self.encode(
            encoder_input_tokens, encoder_segment_ids, deterministic=deterministic
        )
        return self.decode(
            encoded,
            encoder_input_tokens > 0,
            decoder_input_tokens,
            encoder_segment_ids,
            decoder_segment_ids,
            deterministic=deterministic,
        )
