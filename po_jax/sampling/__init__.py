"""Completions drawn from a policy, a partner, or their geometric mixture."""

from po_jax.sampling.mixture import sample
from po_jax.sampling.sampler import Sampler
from po_jax.sampling.strategy import Strategy

__all__ = ["Sampler", "Strategy", "sample"]
