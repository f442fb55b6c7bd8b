"""Offline and online preference optimisation of T5 language models in JAX.

`po_jax.Policy`, `po_jax.Alignment` and what else is listed here are loaded when they are asked for:
`import po_jax.losses.pairwise` costs what that module needs.
"""

import importlib
from typing import Any

_HOMES = {
    "Alignment": "po_jax.alignment",
    "CallableJudge": "po_jax.judges",
    "LanguageModel": "po_jax.language_model",
    "Policy": "po_jax.alignment",
    "RougeJudge": "po_jax.judges",
    "Sampler": "po_jax.sampling",
    "Strategy": "po_jax.sampling",
    "Trainer": "po_jax.training.loop",
    "trained_judge": "po_jax.judges",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'po_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
