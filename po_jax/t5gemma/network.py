"""The T5Gemma network: encoder, decoder and the two ways to run a decoder, as `po_jax.t5.network`.

Parameter trees are like a T5's, `layers_0` and so on or stacked on axis 1, but for norms after what
they were before too, and an embedding in each stack where the two do not share one. Shape letters:
see `layers.py`.
"""

from flax import linen as nn
import jax.numpy as jnp

from po_jax.partitioning import shard
from po_jax.t5.stack import mask_bias
from po_jax.t5gemma import layers
from po_jax.t5gemma.config import T5GemmaConfig
from po_jax.t5gemma.decoder import Decoder
from po_jax.t5gemma.encoder import Encoder


class Transformer(nn.Module):
    """A T5Gemma or the text part of a T5Gemma 2.

    Methods are called through `apply(..., method="encode")`.

    Attributes:
      config: its shape.
      pad: id of padding, which nothing attends to.
    """

    config: T5GemmaConfig
    pad: int

    def setup(self):
        cfg, shared = self.config, None
        if cfg.shared_embedding:
            sizes = (cfg.vocab_size, cfg.decoder.emb_dim, cfg.dtype, cfg.end_of_image)
            shared = self.token_embedder = layers.Embed(*sizes)
        self.encoder = Encoder(cfg, shared)
        self.decoder = Decoder(cfg, shared)

    @property
    def scan_layers(self):
        """T5X's state initialiser asks the module for this."""
        return self.config.scan_layers

    def encode(self, tokens, segment_ids=None, *, deterministic=True):
        """Encodes prompts [B, S] to [B, S, E]; packed ones attend within their segment only."""
        allowed = (tokens != self.pad)[:, None, :]
        if segment_ids is not None:
            allowed = allowed & (segment_ids[:, :, None] == segment_ids[:, None, :])
        return self.encoder(tokens, allowed, deterministic)

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
          encoded: [B, S, E of the encoder].
          encoder_mask: [B, S], true on tokens of the prompt.
          decoder_input_tokens: [R, T], the targets shifted right; R = B K for K completions a
            prompt, those of one prompt next to each other.
          encoder_segment_ids, decoder_segment_ids: of packed examples (R = B), or None.
          deterministic: without dropout.
        """
        # Targets are padded at the end only, which causality already hides from the rest.
        allowed = jnp.ones((1, decoder_input_tokens.shape[1], decoder_input_tokens.shape[1]), bool)
        cross = encoder_mask[:, None, :]
        if decoder_segment_ids is not None:
            allowed = decoder_segment_ids[:, :, None] == decoder_segment_ids[:, None, :]
            cross = cross & (decoder_segment_ids[:, :, None] == encoder_segment_ids[:, None, :])
        return self.decoder(decoder_input_tokens, encoded, allowed, mask_bias(cross), deterministic)

    def logits(self, hidden):
        """The output head: decoder states [..., E] to float32 logits [..., V]."""
        logits = self.decoder.logits(hidden)
        return shard(logits, "batch", *(["length"] * (logits.ndim - 2)), "vocab")

    def prefill(self, encoded, encoder_mask, samples, max_length):
        """An empty cache for `samples` completions of each prompt, up to `max_length` tokens."""
        return self.decoder.cache(encoded, mask_bias(encoder_mask[:, None, :]), samples, max_length)

    def extend(self, cache, tokens):
        """Feeds one token a row, [R], and returns the logits [R, V] of the next, and the cache."""
        x, cache = self.decoder.step(tokens[:, None], cache)
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
        hidden = self.hidden(
            encoded,
            encoder_input_tokens != self.pad,
            decoder_input_tokens,
            encoder_segment_ids,
            decoder_segment_ids,
            deterministic=deterministic,
        )
        return self.logits(hidden)
