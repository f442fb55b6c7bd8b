"""T5 as a `po_jax.language_model.LanguageModel`, and whatever has the methods of its module."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, ClassVar

import flax
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from po_jax.language_model import SpecialIds, Take, require_completions
from po_jax.logprobs import chunked_token_logprobs, token_logprobs
from po_jax.partitioning import axis_names, shard
from po_jax.t5.config import T5Config
from po_jax.t5.decoder import Cache
from po_jax.t5.network import Transformer
from po_jax.types import Params


@flax.struct.dataclass
class Encoded:
    """Encoded prompts: states [batch, prompt_length, emb] and the mask of their tokens."""

    states: Float[Array, "batch prompt emb"]
    mask: Bool[Array, "batch prompt"]


def shift_right(tokens: Int[Array, "*batch length"], start: int = 0) -> Int[Array, "*batch length"]:
    """A decoder's inputs for these targets: the start token first, the last target left out."""
    widths = [(0, 0)] * (tokens.ndim - 1) + [(1, 0)]
    return jnp.pad(tokens, widths, constant_values=start)[..., :-1]


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
    """An encoder-decoder as a conditional distribution over completions: pi(y | x).

    Hashable, so that it is a static argument of jitted functions; parameters are passed in.

    Attributes:
      config: the network.
      score_chunk: target positions whose logits `score` holds at a time; None for all of them.
        A smaller chunk saves memory (a position costs a vocabulary of float32 a row) and costs
        the backward pass a second product with the output head.
      special_ids: of the checkpoint's vocabulary.
      kept_float32: names of parameters that the network reads in float32, whatever its dtype.
      frozen: parts of the parameters that are not trained: none.
    """

    config: Any
    score_chunk: int | None = None
    special_ids: SpecialIds = SpecialIds()

    kept_float32: ClassVar[tuple[str, ...]] = ()
    frozen: ClassVar[tuple[str, ...]] = ()

    @property
    def module(self) -> nn.Module:
        """The Flax module, with the methods of a T5's."""
        raise NotImplementedError

    @property
    def has_dropout(self) -> bool:
        """Whether anything is dropped where there is a dropout key."""
        return self.config.dropout_rate > 0.0

    @property
    def beyond_shapes(self) -> Mapping[str, Any]:
        """What decides the function and no shape of a parameter tells."""
        return self.config.beyond_shapes

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    def init(self, key: PRNGKeyArray) -> Params:
        """Fresh parameters, float32."""
        return _init(self, key)["params"]

    def parameter_axes(self) -> Any:
        """The tree of the parameters' logical axis names, found without computing anything."""
        return _parameter_axes(self)

    def for_sampling(self, params: Params) -> Params:
        """The parameters as the network reads them: in its dtype, laid out by the rules in force.

        What it computes with them is bitwise the same. In a decoding loop a GPU would otherwise
        cast every parameter, and scanned layers gather theirs from all devices, at every token.
        """

        def prepare(path, parameter, names):
            if path[-1].key not in self.kept_float32:
                parameter = parameter.astype(self.config.dtype)
            return shard(parameter, *names)

        params = flax.core.unfreeze(params)  # T5X's are frozen.
        return jax.tree_util.tree_map_with_path(prepare, params, self.parameter_axes())

    def encode(
        self,
        params: Params,
        prompt: Int[Array, "batch prompt"],
        *,
        dropout_key: PRNGKeyArray | None = None,
    ) -> Encoded:
        """Encodes prompts, once for however many completions each has."""
        states = self._apply(params, "encode", dropout_key, prompt)
        return Encoded(states, prompt != self.special_ids.pad)

    def prefill(self, params: Params, encoded: Encoded, samples: int, max_length: int) -> Cache:
        """An empty cache for `samples` completions of each prompt, up to `max_length` tokens."""
        return self._apply(
            params, "prefill", None, encoded.states, encoded.mask, samples, max_length
        )

    def extend(
        self, params: Params, cache: Cache, tokens: Int[Array, "rows"]
    ) -> tuple[Float[Array, "rows vocab"], Cache]:
        """Feeds one token a row; logits of the next one, float32, and the longer cache.

        The first token of every row is the decoder's start. Rows are prompt-major: all completions
        of the first prompt, then those of the second.
        """
        return self._apply(params, "extend", None, cache, tokens)

    def take(self, cache: Cache, prompts: Take, rows: Take) -> Cache:
        """The cache of some rows, with the keys and values of their prompts."""
        axis = 1 if self.config.scan_layers else 0
        return cache.replace(
            cross=jax.tree.map(lambda x: prompts(x, axis), cache.cross),
            cross_bias=prompts(cache.cross_bias, 0),
            own=jax.tree.map(lambda x: rows(x, axis), cache.own),
        )

    def score(
        self,
        params: Params,
        prompt: Int[Array, "batch prompt"],
        completion: Int[Array, "batch samples length"],
        mask: Bool[Array, "batch samples length"],
        *,
        dropout_key: PRNGKeyArray | None = None,
        learned: int | None = None,
    ) -> Float[Array, "batch samples length"]:
        """log pi of every token of the completions, teacher-forced; 0 outside the mask.

        Only the first `learned` completions of each prompt are differentiated; None for all.

        Raises:
          ValueError: if completions are not of these prompts.
        """
        require_completions(prompt, completion)
        encoder_key, decoder_key = _keys(dropout_key)
        encoded = self.encode(params, prompt, dropout_key=encoder_key)
        if learned is None:
            logprobs = self._score(params, encoded, completion, decoder_key)
        else:
            given = (params, encoded)
            parts = (completion[:, :learned], completion[:, learned:])
            logprobs = jnp.concatenate(
                [
                    self._score(*given, parts[0], decoder_key),
                    self._score(*jax.lax.stop_gradient(given), parts[1], decoder_key),
                ],
                axis=1,
            )
        return jnp.where(mask, logprobs, 0.0)

    def _score(self, params, encoded, completion, dropout_key):
        """log pi of every token, padding's too."""
        tokens = completion.reshape(-1, completion.shape[-1])
        inputs = shift_right(tokens, self.special_ids.start)
        hidden = self._apply(params, "hidden", dropout_key, encoded.states, encoded.mask, inputs)

        def head(states):
            return self._apply(params, "logits", None, states)

        if self.score_chunk is None:
            logprobs = token_logprobs(head(hidden), tokens)
        else:
            logprobs = chunked_token_logprobs(head, hidden, tokens, chunk=self.score_chunk)
        return logprobs.reshape(completion.shape)

    def next_token_logits(
        self,
        params: Params,
        prompt: Int[Array, "batch prompt"],
        completion: Int[Array, "batch samples length"],
        mask: Bool[Array, "batch samples length"],
        *,
        dropout_key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch samples vocab"]:
        """Logits of the token after each completion, float32; the head reads that position alone.

        A prompt is encoded once for all its completions.

        Raises:
          ValueError: if completions are not of these prompts.
        """
        require_completions(prompt, completion)
        batch, samples, length = completion.shape
        encoder_key, decoder_key = _keys(dropout_key)
        encoded = self.encode(params, prompt, dropout_key=encoder_key)
        start = self.special_ids.start
        rows = completion.reshape(batch * samples, length)
        inputs = jnp.pad(rows, ((0, 0), (1, 0)), constant_values=start)
        hidden = self._apply(params, "hidden", decoder_key, encoded.states, encoded.mask, inputs)
        is_last = jnp.arange(length + 1)[None] == jnp.sum(mask, axis=-1).reshape(-1, 1)
        # Compared and summed: a gather's gradient would be a scatter.
        last = jnp.sum(jnp.where(is_last[..., None], hidden, 0), axis=1, keepdims=True)
        logits = self._apply(params, "logits", None, last)
        return logits.reshape(batch, samples, -1)

    def logits(
        self,
        params: Params,
        inputs: Int[Array, "batch input_length"],
        decoder_inputs: Int[Array, "batch length"],
        *,
        input_segments: Int[Array, "batch input_length"] | None = None,
        decoder_segments: Int[Array, "batch length"] | None = None,
        dropout_key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch length vocab"]:
        """Teacher-forced logits, float32; segments tell packed examples apart."""
        return self._apply(
            params,
            "__call__",
            dropout_key,
            inputs,
            decoder_inputs,
            input_segments,
            decoder_segments,
        )

    def _apply(self, params, method, dropout_key, *args):
        options = {}
        if dropout_key is not None:
            options = {"deterministic": False, "rngs": {"dropout": dropout_key}}
        return self.module.apply({"params": params}, *args, method=method, **options)


@dataclasses.dataclass(frozen=True)
class T5LM(EncoderDecoder):
    """A T5, with T5X's parameters and initial scales.

    Raises:
      ValueError: if padding has another id than 0, which T5's network takes for padding.
    """

    config: T5Config

    kept_float32 = ("rel_embedding",)

    def __post_init__(self):
        if self.special_ids.pad != 0:
            raise ValueError(f"T5LM: expected padding of id 0, got {self.special_ids.pad}")

    @property
    def module(self) -> Transformer:
        """The Flax module, which T5X asks whether its layers are scanned."""
        return Transformer(self.config)


def _keys(dropout_key: PRNGKeyArray | None) -> tuple[PRNGKeyArray | None, PRNGKeyArray | None]:
    """Of the encoder and of the decoder."""
    if dropout_key is None:
        return None, None
    encoder_key, decoder_key = jax.random.split(dropout_key)
    return encoder_key, decoder_key


def _init(model: EncoderDecoder, key: PRNGKeyArray) -> dict[str, Any]:
    tokens = jnp.ones((1, 1), jnp.int32)
    return model.module.init(key, tokens, tokens)


@functools.cache
def _parameter_axes(model):
    variables = jax.eval_shape(functools.partial(_init, model), jax.random.key(0))
    return axis_names(variables["params_axes"])
