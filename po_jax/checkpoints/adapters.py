"""A checkpoint that holds an adapter alone: which base it is of, and the model that both make."""

from collections.abc import Callable
import dataclasses
import functools
import hashlib

import numpy as np

from po_jax import processes
from po_jax.checkpoints import leaves as lazy
from po_jax.checkpoints import trees
from po_jax.checkpoints.about import AdapterFacts
from po_jax.checkpoints.leaves import Leaf, Leaves
from po_jax.lora import MATRICES


def fingerprint(leaves: Leaves) -> str:
    """A hash of names, shapes, dtypes and values as they are stored; the first process reads."""

    def read() -> str:
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(leaves):
            leaf = leaves[name]
            digest.update(f"{name} {leaf.shape} {leaf.dtype.name} ".encode())
            digest.update(np.ascontiguousarray(leaf.value()).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    return processes.gathered(lambda: [read() for _ in processes.own([0])])[0]


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter that is not read yet, and its base.

    Attributes:
      where: the checkpoint, for messages.
      leaves: A and B, by the path of their kernel: "<path>/a" and "<path>/b".
      base: the parameters of the base.
      facts: what the checkpoint says of the two.
    """

    where: str
    leaves: Leaves
    base: Leaves
    facts: AdapterFacts

    def check_base(self) -> None:
        """Reads the base, to see whether it is the one that the adapter says it was trained on.

        Raises:
          ValueError: if it has other values.
        """
        if self.facts.fingerprint is None:
            return
        found = fingerprint(self.base)
        if found != self.facts.fingerprint:
            raise ValueError(
                f"{self.where}: expected the base that this adapter was trained on, "
                f"{self.facts.fingerprint} of {self.facts.base}, got {found} there: it has "
                "changed since"
            )

    def check_fit(self, scale: float, dtype: str) -> None:
        """Raises ValueError if a model with this scale, whose base has this dtype, is another."""
        expected = {"scale": scale, "base_dtype": dtype}
        found = {"scale": self.facts.scale, "base_dtype": self.facts.dtype}
        if found != expected:
            raise ValueError(
                f"{self.where}: expected an adapter of {expected}, got one of {found} (the scale "
                "is alpha / rank)"
            )

    def merged(self) -> dict[str, Leaf]:
        """The parameters W + scale A B of named layers; float32, whatever the base is kept in.

        Whoever reads them has the base looked at first; see `check_base`.
        """
        kernels, factors = trees.named_layers(self.base), trees.named_layers(self.leaves)
        absent = sorted({name.rpartition("/")[0] for name in factors} - set(kernels))
        if absent:
            raise ValueError(
                f"{self.where}: expected the base {self.facts.base} to have the kernels that this "
                f"adapter changes, got one without {absent[:3]}"
            )
        checked = functools.cache(self.check_base)
        result = {}
        for name, kernel in kernels.items():
            if name.rpartition("/")[2] in MATRICES:
                kernel = lazy.cast(kernel, self.facts.dtype)
            kernel = lazy.cast(kernel, np.float32)
            pair = [factors[f"{name}/{which}"] for which in "ab"] if f"{name}/a" in factors else []
            result[name] = _changed(kernel, pair, self.facts.scale, checked)
        return result


def _changed(kernel: Leaf, pair: list[Leaf], scale: float, checked: Callable[[], None]) -> Leaf:
    def read(block: lazy.Block) -> np.ndarray:
        checked()
        value = kernel.read(block)
        if not pair:
            return value
        a, b = (factor.value().astype(np.float32) for factor in pair)
        return value + np.float32(scale) * (a[block[0]] @ b[:, block[1]])

    return dataclasses.replace(kernel, read=read)
