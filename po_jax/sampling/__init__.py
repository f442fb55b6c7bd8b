"""Completions drawn from a policy, a reference, or their geometric mixture."""

from po_jax.sampling.mixture import Strategy, choose, sample

__all__ = ["Strategy", "choose", "sample"]
