"""How everything but the networks knows a language model: pi(y | x) and the parts it is made of.

`po_jax.t5` holds one, `po_jax.t5gemma` another; `po_jax.lora` puts adapters on either. A further
network needs these methods, and no change elsewhere.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from po_jax.types import Params
from po_jax.vocabulary import Vocabulary

Encoded = Any  # what a model knows of encoded prompts
Cache = Any  # what a model keeps of the tokens that it was fed
Take = Callable[[Array, int], Array]  # some of an array's places along an axis


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The token ids that mean no text; T5's by default.

    Attributes:
      pad: fills rows up; never part of a text.
      eos: ends a text, and is part of it.
      start: what the decoder is fed before the first token.
    """

    pad: int = 0
    eos: int = 1
    start: int = 0


@runtime_checkable
class LanguageModel(Protocol):
    """A conditional distribution over completions.

    Hashable, so that it is a static argument of jitted functions; parameters are passed in. Rows
    are prompt-major: all completions of the first prompt, then those of the second.

    Attributes:
      vocab_size: ids that it has embeddings for.
      special_ids: padding, EOS, and the decoder's start.
      has_dropout: whether what is given a dropout key depends on it.
      frozen: parts of its parameters that are not trained; all are, but for adapters.
      beyond_shapes: what decides its function and no shape of a parameter tells.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def special_ids(self) -> SpecialIds: ...

    @property
    def has_dropout(self) -> bool:
        """Whether anything is dropped where there is a dropout key."""
        return False

    @property
    def frozen(self) -> tuple[str, ...]:
        """Parts of its parameters, at the top of their tree, that are not trained."""
        return ()

    @property
    def beyond_shapes(self) -> Mapping[str, Any]:
        """By name, as checkpoints keep it: another network's parameters are refused."""
        return {}

    def init(self, key: PRNGKeyArray) -> Params:
        """Fresh parameters."""

    def parameter_axes(self) -> Any:
        """The tree of the parameters' logical axis names."""

    def for_sampling(self, params: Params) -> Params:
        """The parameters as a decoding loop reads them, prepared once and not at every token."""

    def encode(
        self,
        params: Params,
        prompt: Int[Array, "batch prompt"],
        *,
        dropout_key: PRNGKeyArray | None = None,
    ) -> Encoded:
        """Encodes prompts, once for however many completions each has.

        Arrays have an axis of prompts, then, if any, that of the prompts' positions.
        """

    def prefill(self, params: Params, encoded: Encoded, samples: int, max_length: int) -> Cache:
        """An empty cache for `samples` completions of each prompt, up to `max_length` tokens."""

    def extend(
        self, params: Params, cache: Cache, tokens: Int[Array, "rows"]
    ) -> tuple[Float[Array, "rows vocab"], Cache]:
        """Feeds one token a row; logits of the next one, float32, and the longer cache."""

    def take(self, cache: Cache, prompts: Take, rows: Take) -> Cache:
        """The cache of some rows, with `prompts` of every array's axis of prompts, or `rows` of its
        axis of rows; all prompts have equally many again."""

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
        """

    def next_token_logits(
        self,
        params: Params,
        prompt: Int[Array, "batch prompt"],
        completion: Int[Array, "batch samples length"],
        mask: Bool[Array, "batch samples length"],
        *,
        dropout_key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch samples vocab"]:
        """Logits of the token after each completion, float32; of the first token, if it is empty.

        Masks are true up to the end of a completion.
        """

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
        """Teacher-forced logits; segments tell packed examples apart."""


def trained_part(model: LanguageModel, tree: Any) -> Any:
    """What is trained of a tree of parameters, or of what stands for them; often all."""
    return {name: tree[name] for name in tree if name not in model.frozen} if model.frozen else tree


def frozen_part(model: LanguageModel, tree: Any) -> dict[str, Any]:
    """What is not trained of a tree of parameters, or of what stands for them; often nothing."""
    return {name: tree[name] for name in model.frozen}


def joined(trained: Params, frozen: Params) -> Params:
    """The parameters of a language model, of what is trained and what is not."""
    return {**trained, **frozen} if frozen else trained


def as_read(model: LanguageModel, params: Params) -> Params:
    """Parameters that are only read, kept in the dtypes that the model reads them in.

    What it computes with them is bitwise the same, and casts nothing. Nothing becomes wider than it
    was. Frozen parts, which others may have as well, stay as they are.
    """

    def narrowed(x, read):
        return x.astype(read.dtype) if read.dtype.itemsize < x.dtype.itemsize else x

    wanted = trained_part(model, jax.eval_shape(model.for_sampling, params))
    kept = jax.tree.map(narrowed, trained_part(model, params), wanted)
    return joined(kept, frozen_part(model, params))


def require_completions(prompt: Array, *completions: Array) -> None:
    """Holds the shapes of completions against those of the prompts that they are of.

    Attention finds out by numbers of rows alone which are of which prompt, and may be wrong.

    Raises:
      ValueError: if they are not [batch, length] and [batch, samples, length], of one batch.
    """
    shapes = [list(x.shape) for x in (prompt, *completions)]
    ranks = [len(shape) for shape in shapes]
    if ranks != [2] + [3] * len(completions) or any(shape[0] != len(prompt) for shape in shapes):
        raise ValueError(
            "expected prompts [batch, length] and completions of them [batch, samples, length], "
            f"got {', '.join(map(str, shapes))}"
        )


def require_vocabulary(where: str, vocabulary: Vocabulary, model: LanguageModel) -> None:
    """Holds the vocabulary of texts against the model that will read them.

    Raises:
      ValueError: if the model has fewer embeddings than it has ids, or another padding or EOS.
    """
    ids = model.special_ids
    if vocabulary.vocab_size > model.vocab_size:
        raise ValueError(
            f"{where}: expected a vocabulary of at most {model.vocab_size} ids, as many as the "
            f"model has embeddings, got {vocabulary.vocab_size}: give the model's own vocabulary"
        )
    if (vocabulary.pad_id, vocabulary.eos_id) != (ids.pad, ids.eos):
        raise ValueError(
            f"{where}: expected a vocabulary with padding {ids.pad} and EOS {ids.eos}, as the "
            f"model has them, got {vocabulary.pad_id} and {vocabulary.eos_id}"
        )
