"""A run on a topology: whether it fits, what it takes, and what that comes to in chip hours."""

from collections.abc import Callable
import dataclasses
from typing import Any

from po_jax.planning.chips import Topology
from po_jax.planning.cost import Cost, cost_of
from po_jax.planning.programs import Work


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes:
      topology: that it is planned for.
      mesh: size of each axis.
      kept: bytes a chip of what stays between programs, by name.
      costs: of each program, by name.
      tokens: that a step learns from.
      total_steps: of the run.
    """

    topology: Topology
    mesh: dict[str, int]
    kept: dict[str, float]
    costs: dict[str, Cost]
    tokens: int
    total_steps: int

    @property
    def resident(self) -> float:
        """Bytes a chip of all that stays between programs."""
        return sum(self.kept.values(), 0.0)

    def needed(self, name: str) -> float:
        """Bytes a chip while one program runs."""
        return self.resident + sum(self.costs[name].memory.values())

    @property
    def peak(self) -> float:
        """Bytes a chip at the worst moment of a step."""
        return max(map(self.needed, self.costs), default=self.resident)

    @property
    def fits(self) -> bool:
        refused = any(cost.refused for cost in self.costs.values())
        return not refused and self.peak <= self.topology.chip.memory

    @property
    def step_seconds(self) -> float:
        """The least that a step takes, by the roofline of each program."""
        return sum((cost.runs * cost.roofline for cost in self.costs.values()), 0.0)

    @property
    def hours(self) -> float:
        return self.total_steps * self.step_seconds / 3600

    def as_json(self) -> dict[str, Any]:
        """Everything, in bytes and seconds."""
        programs = {
            name: {
                **dataclasses.asdict(cost),
                "needed": self.needed(name),
                "bound": cost.bound,
                "roofline": cost.roofline,
            }
            for name, cost in self.costs.items()
        }
        return {
            "topology": str(self.topology),
            "chips": self.topology.chips,
            "memory": self.topology.chip.memory,
            "mesh": self.mesh,
            "kept": self.kept,
            "programs": programs,
            "peak": self.peak,
            "fits": self.fits,
            "tokens": self.tokens,
            "step_seconds": self.step_seconds,
            "tokens_a_second": self.tokens / self.step_seconds if self.step_seconds else None,
            "total_steps": self.total_steps,
            "hours": self.hours,
            "chip_hours": self.hours * self.topology.chips,
        }


def plan(
    work: Work,
    topology: Topology,
    mesh: dict[str, int],
    total_steps: int,
    note: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Compiles the programs of a run; none where what stays between them is too much already.

    Args:
      work: of the run, laid out on the topology.
      topology: to compile for.
      mesh: size of each axis.
      total_steps: of the run.
      note: told what is being done.
    """
    found = Plan(topology, mesh, work.kept, {}, work.tokens, total_steps)
    if not found.fits:
        return found
    costs = {}
    for name, program in work.programs.items():
        note(f"compiling {name}")
        costs[name] = cost_of(program, topology)
    return dataclasses.replace(found, costs=costs)
