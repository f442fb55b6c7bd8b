"""A compiled program's text: instructions by computation, and how often each loop runs.

XLA prints one instruction a line: `%name = type opcode(operands), attributes`.
"""

from collections.abc import Iterator
import dataclasses
import functools
import math
import re

_BITS = {"pred": 8, "s4": 4, "u4": 4, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b(pred|token|opaque|[a-z]+[0-9]+[a-z0-9]*)\[([0-9,]*)\](\{[^{}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%")
_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array: its bytes, and whether it lies in the chip's main memory."""

    bytes: float
    in_memory: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
      name: of the result.
      kind: the text of the result's type.
      opcode: what is done.
      operands: names.
      attributes: the rest of the line.
      root: whether it is the computation's result.
    """

    name: str
    kind: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @functools.cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The arrays of the result; several of a tuple."""
        return tuple(map(_shape, _ARRAY.findall(self.kind)))

    @property
    def bytes(self) -> float:
        """Of the result, as far as it lies in the chip's main memory."""
        return sum((shape.bytes for shape in self.shapes if shape.in_memory), 0.0)

    @property
    def index(self) -> int:
        """Of a parameter or of a part of a tuple."""
        found = re.search(r"index=(\d+)", self.attributes)
        return int(found[1]) if found else int(self.operands[0])

    def called(self, role: str) -> str | None:
        """The computation that it calls in a role, such as `body`."""
        found = re.search(rf"\b{role}=%([\w.\-]+)", self.attributes)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in order, by name."""

    instructions: dict[str, Instruction]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def users(self, name: str) -> list[Instruction]:
        """The instructions that read a result."""
        return self._users.get(name, [])

    @functools.cached_property
    def _users(self) -> dict[str, list[Instruction]]:
        found: dict[str, list[Instruction]] = {}
        for instruction in self:
            for name in set(instruction.operands):
                found.setdefault(name, []).append(instruction)
        return found


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
      computations: by name.
      entry: the name of the one that is run.
      trips: assumed of a loop whose text does not tell, a decoding loop; of several in a row, its
        stages, the first has them all.
    """

    computations: dict[str, Computation]
    entry: str
    trips: int

    @classmethod
    def parse(cls, text: str, trips: int = 1) -> "Program":
        """The program of what `jax.stages.Compiled.as_text` returns."""
        computations: dict[str, Computation] = {}
        entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            head = _HEAD.match(line)
            if head:
                current = {}
                computations[head[2]] = Computation(current)
                entry = head[2] if head[1] else entry
            elif line.startswith("  ") and " = " in line:
                instruction = _instruction(line.strip())
                current[instruction.name] = instruction
        return cls(computations, entry, trips)

    def runs(self) -> Iterator[tuple[Instruction, Computation, float]]:
        """Every instruction that is scheduled, where it stands, and how often it runs."""
        yield from self._runs(self.entry, 1.0, float(self.trips))

    def _runs(self, name: str, times: float, trips: float):
        """`runs` of a computation; returns the trips of a decoding loop's stage that comes next."""
        computation = self.computations[name]
        for instruction in computation:
            yield instruction, computation, times
            if instruction.opcode == "while":
                count, body = self._count(instruction), instruction.called("body")
                yield from self._runs(body, times * (trips if count is None else count), trips)
                trips = 0.0 if count is None else trips
            elif instruction.opcode == "call":
                trips = yield from self._runs(instruction.called("to_apply"), times, trips)
            elif instruction.opcode == "conditional":
                for branch in _branches(instruction.attributes):
                    yield from self._runs(branch, times, trips)
        return trips

    def _count(self, loop: Instruction) -> float | None:
        """Trips: what the compiler says, or the constant that the condition has beside a counter.

        None where the condition looks at more than one part of what the loop carries.
        """
        known = _COUNT.search(loop.attributes)
        if known:
            return float(known[1])
        condition = self.computations[loop.called("condition")]
        read = [one for one in condition if one.opcode == "get-tuple-element"]
        bounds = [
            int(one.operands[0])
            for one in condition
            if one.opcode == "constant" and one.operands[0].isdigit()
        ]
        return float(max(bounds)) if len(read) == 1 and bounds else None


def _instruction(line: str) -> Instruction:
    root = line.startswith("ROOT ")
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    kind, rest = _type(rest)
    opcode, _, rest = rest.partition("(")
    inside, attributes = _closed(rest)
    if opcode in ("constant", "parameter"):
        operands = (inside,)
    else:
        operands = tuple(_NAME.findall(inside))
    return Instruction(name.lstrip("%"), kind, opcode.strip(), operands, attributes, root)


def _type(text: str) -> tuple[str, str]:
    """A type at the beginning of a text, and what follows."""
    if text.startswith("("):
        inside, rest = _closed(text[1:])
        return inside, rest.strip()
    kind, _, rest = text.partition(" ")
    return kind, rest


def _closed(text: str) -> tuple[str, str]:
    """What stands before the bracket that closes, and what stands behind it."""
    depth = 1
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return text[: found.start()], text[found.end() :]
    return text, ""


def _branches(attributes: str) -> list[str]:
    found = _BRANCHES.search(attributes)
    if found:
        return _NAME.findall(found[1])
    return [_NAME.match(attributes[m.end() - 1 :])[1] for m in _CALLED.finditer(attributes)]


def _shape(found: tuple[str, str, str]) -> Shape:
    kind, sizes, layout = found
    number = re.search(r"\d+", kind)
    bits = _BITS[kind] if kind in _BITS else int(number[0]) if number else 0
    elements = math.prod(int(size) for size in sizes.split(",") if size)
    space = re.search(r"S\((\d+)\)", layout)
    return Shape(elements * bits / 8, space is None or space[1] == "0")
