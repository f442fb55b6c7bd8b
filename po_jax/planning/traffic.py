"""What a program moves: between a chip's memory and its units, and between chips."""

from collections import defaultdict
from collections.abc import Iterator
import dataclasses
import math
import re

from po_jax.planning.hlo import Computation, Instruction, Program

_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# These move nothing, or only wait for what another line has counted.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while call conditional after-all iota "
    "partition-id replica-id opt-barrier copy-done slice-done async-done async-update domain "
    "add-dependency get-dimension-size send-done recv-done".split()
)
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclasses.dataclass(frozen=True)
class Collectives:
    """Exchanges of one kind, by one chip in one run of a program.

    Attributes:
      calls: how many there are, loops included.
      bytes: that the chip sends within a slice.
      network_bytes: that the chip sends to other slices.
      largest: bytes of the largest array that is exchanged.
    """

    calls: float = 0.0
    bytes: float = 0.0
    network_bytes: float = 0.0
    largest: float = 0.0

    def plus(self, call: "Collectives", times: float) -> "Collectives":
        """These, and a call that runs so many times."""
        return Collectives(
            self.calls + times,
            self.bytes + times * call.bytes,
            self.network_bytes + times * call.network_bytes,
            max(self.largest, call.largest),
        )


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one chip moves in one run of a program.

    Attributes:
      memory: bytes read from and written to the chip's memory.
      collectives: by kind.
    """

    memory: float
    collectives: dict[str, Collectives]

    @property
    def sent(self) -> float:
        """Bytes to other chips of the slice."""
        return sum((kind.bytes for kind in self.collectives.values()), 0.0)

    @property
    def sent_far(self) -> float:
        """Bytes to other slices."""
        return sum((kind.network_bytes for kind in self.collectives.values()), 0.0)


def traffic(program: Program, chips: int, slices: int = 1) -> Traffic:
    """Counts what a program moves.

    Args:
      program: as it was compiled for one of the chips.
      chips: that run it together.
      slices: that they lie on, in order.
    """
    memory = 0.0
    found: dict[str, Collectives] = defaultdict(Collectives)
    for instruction, computation, times in program.runs():
        for exchange in _exchanges(program, instruction, computation):
            kind, call = _exchange(*exchange, chips, slices)
            found[kind] = found[kind].plus(call, times)
        memory += times * _moved(program, instruction, computation)
    return Traffic(memory, dict(found))


def _exchanges(
    program: Program, instruction: Instruction, computation: Computation
) -> Iterator[tuple[Instruction, Computation]]:
    """The collectives that an instruction is or, as an asynchronous fusion, holds."""
    if instruction.opcode.removesuffix("-start") in _COLLECTIVES:
        yield instruction, computation
    name = instruction.called("calls")
    if name in program.computations and instruction.opcode in ("fusion", "async-start"):
        inside = program.computations[name]
        for inner in inside:
            yield from _exchanges(program, inner, inside)


def _exchange(
    instruction: Instruction, computation: Computation, chips: int, slices: int
) -> tuple[str, Collectives]:
    """The kind of a collective, and one call of it."""
    kind = instruction.opcode.removesuffix("-start")
    arrays = [shape.bytes for shape in instruction.shapes]
    for name in instruction.operands:
        if name in computation.instructions:
            arrays += [shape.bytes for shape in computation.instructions[name].shapes]
    # A start's result holds operand and result; the larger of the two is what is exchanged.
    whole = max(arrays, default=0.0)
    size, far = _group(instruction.attributes, chips, slices)
    if kind == "collective-permute":
        sent = whole
    else:
        sent = whole * (size - 1) / size * (2.0 if kind == "all-reduce" else 1.0)
    return kind, Collectives(1.0, 0.0 if far else sent, sent if far else 0.0, whole)


def _group(attributes: str, chips: int, slices: int) -> tuple[int, bool]:
    """How many chips exchange with each other, and whether they lie on several slices."""
    group = _first_group(attributes, chips)
    a_slice = chips // slices
    return max(len(group), 1), len({chip // a_slice for chip in group}) > 1


def _first_group(attributes: str, chips: int) -> list[int]:
    """The chips that exchange with chip 0, in any of the three forms that XLA writes."""
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes)
    if pairs:
        return [int(pairs[1]), int(pairs[2])]
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    if listed:
        return [int(chip) for chip in listed[1].split(",")]
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        groups, size = (int(number) for number in iota[1].split(","))
        dims = [int(number) for number in iota[2].split(",")]
        order = [int(number) for number in (iota[3] or "").split(",") if number]
        return _transposed(dims, order or list(range(len(dims))))[:size]
    meshed = re.search(r"replica_groups=mesh\[([^\]]*)\](?: \{([^}]*)\})?", attributes)
    if meshed:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", meshed[1])}
        wanted = re.findall(r"'(\w+)'", meshed[2] or "") or list(sizes)
        rest = [name for name in sizes if name not in wanted]
        names = list(sizes)
        order = [names.index(name) for name in (*rest, *wanted)]
        size = math.prod(sizes[name] for name in wanted)
        return _transposed(list(sizes.values()), order)[:size]
    return list(range(chips))


def _transposed(dims: list[int], order: list[int]) -> list[int]:
    """The numbers from 0 on in an array of these dimensions, read in another order of its axes."""
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    numbers = [0]
    for axis in order:
        numbers = [
            number + index * strides[axis] for number in numbers for index in range(dims[axis])
        ]
    return numbers


def _moved(program: Program, instruction: Instruction, computation: Computation) -> float:
    """Bytes that an instruction reads and writes; of what it only slices, the slice."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0.0

    def read(position: int) -> float:
        operand = computation.instructions.get(instruction.operands[position])
        return 0.0 if operand is None else operand.bytes

    if opcode in _SLICES:
        return 2.0 * instruction.bytes
    if opcode == "dynamic-update-slice":
        return 2.0 * read(1)
    if opcode == "scatter":
        return 3.0 * read(len(instruction.operands) - 1)
    if opcode == "copy-start":
        return read(0) + sum(s.bytes for s in instruction.shapes[:1] if s.in_memory)
    inside = program.computations.get(instruction.called("calls") or "")
    if opcode != "fusion" or inside is None:
        return instruction.bytes + sum(map(read, range(len(instruction.operands))))
    total = _written(program, instruction, inside)
    for position in range(len(instruction.operands)):
        if whole := read(position):
            total += min(whole, _read_of_parameter(program, inside, position))
    return total


def _read_of_parameter(program: Program, inside: Computation, position: int) -> float:
    """Bytes that a fusion reads of one of its operands."""
    for instruction in inside:
        if instruction.opcode == "parameter" and instruction.operands[0] == str(position):
            return _read(program, instruction, inside)
    return 0.0


def _read(program: Program, array: Instruction, inside: Computation) -> float:
    """Bytes that the users of an array within a fusion read of it."""
    whole, total = _all_bytes(array), 0.0
    for user in inside.users(array.name):
        nested = program.computations.get(user.called("calls") or "")
        if user.opcode in _SLICES and user.operands[0] == array.name:
            total += _all_bytes(user)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == array.name:
            continue  # updated in place
        elif user.opcode == "bitcast":
            total += _read(program, user, inside)
        elif user.opcode == "fusion" and nested is not None:
            total += _read_of_parameter(program, nested, user.operands.index(array.name))
        else:
            return whole
    return min(total, whole)


def _written(program: Program, fusion: Instruction, inside: Computation) -> float:
    """Bytes that a fusion writes; where its result is an array updated in place, the update."""
    total = fusion.bytes
    for whole, update in _updates(program, inside):
        if whole <= total:
            total += update - whole
    return max(total, 0.0)


def _updates(program: Program, inside: Computation) -> Iterator[tuple[float, float]]:
    """Bytes of each array that a fusion updates, and of the update."""
    for instruction in inside:
        nested = program.computations.get(instruction.called("calls") or "")
        if instruction.opcode == "dynamic-update-slice":
            update = inside.instructions.get(instruction.operands[1])
            if update is not None:
                yield _all_bytes(instruction), _all_bytes(update)
        elif instruction.opcode == "fusion" and nested is not None:
            yield from _updates(program, nested)


def _all_bytes(instruction: Instruction) -> float:
    return sum((shape.bytes for shape in instruction.shapes), 0.0)
