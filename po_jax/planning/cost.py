"""What a program costs a chip, as the compiler has it: memory, arithmetic, and what it moves."""

import dataclasses
import re
import time
from typing import Any

import jax

from po_jax.planning import hlo
from po_jax.planning.chips import Topology
from po_jax.planning.flops import matrix_flops
from po_jax.planning.programs import Program
from po_jax.planning.traffic import Collectives, traffic

_TOO_LARGE = re.compile(r"Used ([\d.]+)([KMGT]?) of|([\d.]+)([KMGT]?)iB of memory")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Cost:
    """One run of one program, on one chip.

    Attributes:
      memory: bytes beside what stays between programs, by name; their sum is what it needs.
      flops: of matrix products.
      moved: bytes between the chip and its memory.
      collectives: exchanges with other chips, by kind.
      seconds: the least that compute, memory and interconnect take, by name.
      runs: how often it runs at a step.
      compile_seconds: that the compiler took.
      refused: what the compiler said, if the program does not fit a chip; then the rest is 0.
    """

    memory: dict[str, float]
    flops: float = 0.0
    moved: float = 0.0
    collectives: dict[str, Collectives] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    runs: int = 1
    compile_seconds: float = 0.0
    refused: str | None = None

    @property
    def sent(self) -> float:
        """Bytes to other chips, near or far."""
        kinds = self.collectives.values()
        return sum((kind.bytes + kind.network_bytes for kind in kinds), 0.0)

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(self.seconds, key=self.seconds.__getitem__, default="memory")

    @property
    def roofline(self) -> float:
        """Seconds of one run, if nothing else took time and all overlapped."""
        return max(self.seconds.values(), default=0.0)


def cost_of(program: Program, topology: Topology) -> Cost:
    """Compiles a program and reads what it costs.

    Raises:
      jax.errors.JaxRuntimeError: if the compiler fails for another reason than memory.
    """
    began = time.monotonic()
    try:
        compiled = program.traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed = _needed(str(error))
        memory = {"temporaries": max(needed - program.given, 0.0)}
        return Cost(memory, runs=program.runs, refused=str(error).strip().splitlines()[0])
    took = time.monotonic() - began
    text = hlo.Program.parse(compiled.as_text(), program.trips)
    found = traffic(text, topology.chips, topology.islands)
    flops = matrix_flops(program.traced.jaxpr, program.trips) / topology.chips
    chip = topology.chip
    seconds = {
        "compute": flops / chip.flops,
        "memory": found.memory / chip.bandwidth,
        "interconnect": found.sent / chip.interconnect + found.sent_far / chip.network,
    }
    return Cost(
        memory=_memory(compiled.memory_analysis(), program),
        flops=flops,
        moved=found.memory,
        collectives=found.collectives,
        seconds=seconds,
        runs=program.runs,
        compile_seconds=took,
    )


def _memory(found: Any, program: Program) -> dict[str, float]:
    """Bytes beside what stays: of what the compiler lays out, the known parts and the rest."""
    inputs = found.argument_size_in_bytes - program.given
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes
    memory = {"inputs and outputs": max(inputs, 0.0) + outputs}
    rest = float(found.temp_size_in_bytes)
    for name, size in program.known.items():
        memory[name] = min(size, rest)
        rest -= memory[name]
    memory["activations and temporaries"] = rest
    memory["code"] = float(found.generated_code_size_in_bytes)
    return memory


def _needed(message: str) -> float:
    """Bytes that a compiler says a program wants; 0 if it does not say."""
    found = _TOO_LARGE.search(message)
    if found is None:
        return 0.0
    number, unit = (found[1], found[2]) if found[1] else (found[3], found[4])
    return float(number) * _UNITS[unit]
