"""Several processes that run one program: what they tell each other, and how they agree.

They talk through the coordination service of `jax.distributed`, which must have been initialised
(`launch.processes` does it for the commands). One process says nothing, and nothing costs.
"""

from po_jax.processes.agreement import Elsewhere, Interrupted, gathered, met, own
from po_jax.processes.alike import alike, difference
from po_jax.processes.talk import beat, count, index
from po_jax.processes.watch import fail, leave, watch

__all__ = [
    "Elsewhere",
    "Interrupted",
    "alike",
    "beat",
    "count",
    "difference",
    "fail",
    "gathered",
    "index",
    "leave",
    "met",
    "own",
    "watch",
]
