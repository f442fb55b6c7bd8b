"""Offline and online preference optimisation of T5 language models in JAX.

Nothing is imported here: `import po_jax.losses.pairwise` costs what that module needs.
"""
