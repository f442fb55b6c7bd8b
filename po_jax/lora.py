"""Low-rank adapters (LoRA, arXiv 2106.09685) as a language model around another, which is frozen.

A kernel W acts as W + (alpha / rank) A B. The product of A and B is never formed: activations go
through A, then B, and are added to those of W. So no gradient of W is ever held, a sum that W's
dtype would round away (a small A B beside a large W in bfloat16) still counts, and policies with
one base and different adapters read W together. At its start B is 0, and the model is its base,
bit for bit.
"""

from collections.abc import Mapping
import dataclasses
import functools
import re
from typing import Any, ClassVar

from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from po_jax.language_model import Cache, Encoded, SpecialIds, Take
from po_jax.partitioning import shard
from po_jax.t5.language_model import EncoderDecoder
from po_jax.t5.layers import Dense, dropout, product
from po_jax.types import Params

ADAPTER, BASE = "adapter", "base"  # the parts of the parameters
MATRICES = ("kernel", "embedding")  # of the base; the rest, norms and biases, is small
QUERY_AND_VALUE = r".*attention/(query|value)/kernel"

_A, _B = "low_rank_a", "low_rank_b"  # beside the kernel, while a network runs
_LAYERS = "layers"

Shapes = tuple[tuple[int, ...], tuple[int, ...]]  # of A and B
Names = tuple[tuple[str, ...], tuple[str, ...]]  # of their axes


@dataclasses.dataclass(frozen=True)
class LoRA:
    """A T5 or T5Gemma whose own parameters are frozen, with an adapter that is trained.

    Its parameters are {"adapter": ..., "base": ...}. The adapter has, at the path of each kernel
    that it changes, `a` [inputs, rank] and `b` [rank, outputs], whose axes of heads are one; in
    scanned layers with the layers' axis between the two.

    Attributes:
      base: what is adapted.
      rank: of A B.
      alpha: the adapter acts times alpha / rank.
      targets: which kernels have an adapter: an expression that their whole path must match.
      dropout_rate: of what goes into A, while training; a policy has none.
      base_dtype: that the base's kernels and embeddings are kept in.

    Raises:
      ValueError: on a value out of its range, a pattern that no kernel matches, or a rank beyond a
        kernel's.
    """

    base: EncoderDecoder
    rank: int = 8
    alpha: float = 16.0
    targets: str = QUERY_AND_VALUE
    dropout_rate: float = 0.0
    base_dtype: str = "float32"

    frozen: ClassVar[tuple[str, ...]] = (BASE,)

    def __post_init__(self):
        for name, valid, expected in (
            ("rank", self.rank >= 1, "at least 1"),
            ("alpha", self.alpha > 0, "more than 0"),
            ("dropout_rate", 0 <= self.dropout_rate < 1, "a rate in [0, 1)"),
            ("base_dtype", self.base_dtype in ("float32", "bfloat16"), "float32 or bfloat16"),
        ):
            if not valid:
                raise ValueError(f"LoRA.{name}: expected {expected}, got {getattr(self, name)!r}")
        shapes = self.shapes()
        if not shapes:
            raise ValueError(
                f"LoRA.targets: expected to match the path of a kernel, such as "
                f"{next(iter(_shapes_and_axes(self.base)))!r}, got {self.targets!r}"
            )
        for path, (a, b) in shapes.items():
            if self.rank > min(a[0], b[-1]):
                raise ValueError(
                    f"LoRA.rank: expected at most {min(a[0], b[-1])}, the rank of {path}, got "
                    f"{self.rank}"
                )

    @property
    def scale(self) -> float:
        """Of the adapter's part."""
        return self.alpha / self.rank

    @property
    def vocab_size(self) -> int:
        return self.base.vocab_size

    @property
    def special_ids(self) -> SpecialIds:
        return self.base.special_ids

    @property
    def has_dropout(self) -> bool:
        """Whether anything is dropped where there is a dropout key."""
        return self.dropout_rate > 0.0 or self.base.has_dropout

    @property
    def beyond_shapes(self) -> Mapping[str, Any]:
        """Of the base: the adapter's own scale is held against its checkpoint's by itself."""
        return self.base.beyond_shapes

    def shapes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """The shapes of A and B, by the path of the kernel."""
        return {path: shapes for path, (shapes, _) in _targets(self).items()}

    def init(self, key: PRNGKeyArray) -> Params:
        """Fresh parameters: the columns of A orthonormal, B 0.

        At full rank the first update then changes W in the direction that training W itself would.
        """
        base_key, own_key = jax.random.split(key)
        tree = {}
        for index, (path, (a, b)) in enumerate(self.shapes().items()):
            made = _orthonormal(jax.random.fold_in(own_key, index), a)
            tree[f"{path}/a"], tree[f"{path}/b"] = made, jnp.zeros(b, jnp.float32)
        return {ADAPTER: unflatten_dict(tree, sep="/"), BASE: self._kept(self.base.init(base_key))}

    def parameter_axes(self) -> Any:
        """The tree of the parameters' logical axis names."""
        tree = {}
        for path, (_, (a, b)) in _targets(self).items():
            tree[f"{path}/a"], tree[f"{path}/b"] = a, b
        return {ADAPTER: unflatten_dict(tree, sep="/"), BASE: self.base.parameter_axes()}

    def for_sampling(self, params: Params) -> Params:
        """The parameters as a decoding loop reads them; what it computes is bitwise the same."""

        def prepare(parameter, names):
            return shard(parameter.astype(self.base.config.dtype), *names)

        axes = self.parameter_axes()[ADAPTER]
        adapter = jax.tree.map(prepare, params[ADAPTER], axes)
        return {ADAPTER: adapter, BASE: self.base.for_sampling(params[BASE])}

    def encode(
        self,
        params: Params,
        prompt: Int[Array, "batch prompt"],
        *,
        dropout_key: PRNGKeyArray | None = None,
    ) -> Encoded:
        """Encodes prompts, once for however many completions each has."""
        return self._run("encode", params, prompt, dropout_key=dropout_key)

    def prefill(self, params: Params, encoded: Encoded, samples: int, max_length: int) -> Cache:
        """An empty cache for `samples` completions of each prompt, up to `max_length` tokens."""
        return self._run("prefill", params, encoded, samples, max_length)

    def extend(
        self, params: Params, cache: Cache, tokens: Int[Array, "rows"]
    ) -> tuple[Float[Array, "rows vocab"], Cache]:
        """Feeds one token a row; logits of the next one, float32, and the longer cache."""
        return self._run("extend", params, cache, tokens)

    def take(self, cache: Cache, prompts: Take, rows: Take) -> Cache:
        """The cache of some rows, with the keys and values of their prompts."""
        return self.base.take(cache, prompts, rows)

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
        options = {"dropout_key": dropout_key, "learned": learned}
        return self._run("score", params, prompt, completion, mask, **options)

    def next_token_logits(
        self,
        params: Params,
        prompt: Int[Array, "batch prompt"],
        completion: Int[Array, "batch samples length"],
        mask: Bool[Array, "batch samples length"],
        **options: Any,
    ) -> Float[Array, "batch samples vocab"]:
        """Logits of the token after each completion, float32."""
        return self._run("next_token_logits", params, prompt, completion, mask, **options)

    def logits(
        self,
        params: Params,
        inputs: Int[Array, "batch input_length"],
        decoder_inputs: Int[Array, "batch length"],
        **options: Any,
    ) -> Float[Array, "batch length vocab"]:
        """Teacher-forced logits, float32; segments tell packed examples apart."""
        return self._run("logits", params, inputs, decoder_inputs, **options)

    def _run(self, method: str, params: Params, *args: Any, **options: Any) -> Any:
        """A method of the base, whose linear maps find A and B beside their kernels."""
        tree = flatten_dict(dict(params[BASE]))
        for (*path, kernel, which), factor in flatten_dict(dict(params[ADAPTER])).items():
            assert (*path, kernel) in tree
            tree[(*path, _A if which == "a" else _B)] = factor
        with nn.intercept_methods(self._adapt):
            return getattr(self.base, method)(unflatten_dict(tree), *args, **options)

    def _adapt(self, call, args, options, context: nn.module.InterceptorContext) -> Any:
        """Adds what goes through A and B to what a linear map returns."""
        y, module = call(*args, **options), context.module
        if not (isinstance(module, Dense) and module.has_variable("params", _A)):
            return y
        a, b = (module.get_variable("params", name).astype(module.dtype) for name in (_A, _B))
        (x,) = args
        x = x.astype(module.dtype).reshape(*x.shape[: x.ndim - module.input_axes], -1)
        x = dropout(module, x, self.dropout_rate, not module.has_rng("dropout"))
        change = product(product(x, a, 1, a.dtype), b, 1, y.dtype) * self.scale
        return y + change.reshape(y.shape)

    def _kept(self, base: Params) -> Params:
        def keep(path, parameter):
            matrix = path[-1].key in MATRICES
            return parameter.astype(self.base_dtype) if matrix else parameter

        return jax.tree_util.tree_map_with_path(keep, base)


def _orthonormal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "inputs *layers rank"]:
    """Orthonormal columns, in each layer of their own."""
    init = nn.initializers.orthogonal()
    inputs, *layers, rank = shape
    if not layers:
        return init(key, (inputs, rank), jnp.float32)
    keys = jax.random.split(key, layers[0])
    return jax.vmap(lambda one: init(one, (inputs, rank), jnp.float32), out_axes=1)(keys)


@functools.cache  # Tracing a deep network takes seconds.
def _shapes_and_axes(base: EncoderDecoder) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
    """Shape and axis names of every kernel, by its path."""
    shapes = flatten_dict(jax.eval_shape(base.init, jax.random.key(0)), sep="/")
    axes = flatten_dict(base.parameter_axes(), sep="/")
    return {path: (shapes[path].shape, axes[path]) for path in sorted(shapes) if "kernel" in path}


@functools.cache
def _targets(model: LoRA) -> dict[str, tuple[Shapes, Names]]:
    """Shapes and axis names of A and B, by the path of the kernel."""
    pattern, found = re.compile(model.targets), {}
    for path, (shape, names) in _shapes_and_axes(model.base).items():
        if not pattern.fullmatch(path):
            continue
        sizes = dict(zip(names, shape, strict=True))
        layers = (_LAYERS,) if _LAYERS in names else ()
        # In scanned layers heads and their width are two axes of a kernel, side by side.
        ends = [name for name in names if name not in ("kv", _LAYERS)]
        ends = ["joined_kv" if name == "heads" else name for name in ends]
        if "heads" in sizes:
            sizes["joined_kv"] = sizes["heads"] * sizes["kv"]
        sizes["rank"] = model.rank
        axes = ((ends[0], *layers, "rank"), ("rank", *layers, ends[1]))
        a, b = (tuple(sizes[name] for name in one) for one in axes)
        found[path] = ((a, b), axes)
    return found
