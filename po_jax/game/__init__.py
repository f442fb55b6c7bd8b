"""The exact lab: preference games small enough to enumerate, where expectations are sums.

Everything here computes in float64: call it inside `with jax.enable_x64(True):`.
"""
