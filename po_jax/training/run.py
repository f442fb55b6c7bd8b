"""What feeds and evaluations are told of the run that they serve."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

from etils import epath
from jaxtyping import PRNGKeyArray

from po_jax.language_model import LanguageModel, as_read
from po_jax.metrics import Metrics
from po_jax.partitioning import Partitioner
from po_jax.reporting.clock import StageClock
from po_jax.training.state import TrainState
from po_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of training, as seen from its parts.

    Attributes:
      language_model: of the policy and the reference.
      load_reference: makes the parameters of mu, the ones that training started from.
      partitioner: where arrays go.
      key: the root of all randomness.
      directory: of the run's files.
      join: makes the language model's parameters of those that are trained.
    """

    language_model: LanguageModel
    load_reference: Callable[[], Params]
    partitioner: Partitioner
    key: PRNGKeyArray
    directory: epath.PathLike
    join: Callable[[Params], Params] = lambda trained: trained

    @functools.cached_property
    def reference(self) -> Params:
        """Parameters of mu as they are read: loaded once, where something asks for them."""
        return as_read(self.language_model, self.load_reference())


@runtime_checkable
class Feed(Protocol):
    """Where batches come from.

    A feed of which there are several kinds says which it is by a method `made_from`; see
    `po_jax.training.made_from.describe`.
    """

    def batch(self, step: int, state: TrainState, clock: StageClock) -> tuple[Any, Metrics]:
        """The batch of one step, on the devices, and facts about it."""

    def save(self) -> None:
        """Keeps what a resumed run needs beside the checkpoint; called before each one."""
