"""A plan in words, for people."""

from collections.abc import Iterable, Sequence

from po_jax.planning.chips import GIB
from po_jax.planning.plan import Plan


def show(plan: Plan) -> str:
    """A plan as a page of text."""
    topology, mesh = plan.topology, plan.mesh
    shape = " x ".join(f"{axis} {size}" for axis, size in mesh.items())
    title = f"{topology}: {topology.chips} chips, mesh {shape}"
    parts = [title, _memory(plan), _verdict(plan)]
    if plan.costs and not any(cost.refused for cost in plan.costs.values()):
        parts += [_work(plan), _collectives(plan), _time(plan)]
    return "\n\n".join(part for part in parts if part)


def _memory(plan: Plan) -> str:
    rows = [["GiB a chip", *plan.costs]]
    rows += [[name, *[_gib(size)] * max(len(plan.costs), 1)] for name, size in plan.kept.items()]
    inside = dict.fromkeys(name for cost in plan.costs.values() for name in cost.memory)
    for name in inside:
        sizes = (cost.memory.get(name) for cost in plan.costs.values())
        rows.append([name, *("" if size is None else _gib(size) for size in sizes)])
    rows.append(
        ["in all", *([_gib(plan.needed(name)) for name in plan.costs] or [_gib(plan.resident)])]
    )
    return _table(rows)


def _verdict(plan: Plan) -> str:
    available = f"{_gib(plan.topology.chip.memory)} GiB"
    if plan.fits:
        return f"fits: {_gib(plan.peak)} of {available} a chip"
    what = "what stays between programs alone takes" if not plan.costs else "takes"
    lines = [f"does not fit: {what} {_gib(plan.peak)} of {available} a chip"]
    refused = ((name, cost.refused) for name, cost in plan.costs.items() if cost.refused)
    return "\n".join([*lines, *(f"  {name}: {reason}" for name, reason in refused)])


def _work(plan: Plan) -> str:
    rows = [["a chip, a step", *plan.costs, "in all"]]
    costs = plan.costs.values()

    def row(name: str, values: Iterable[float], scale: float) -> None:
        values = [value * cost.runs / scale for value, cost in zip(values, costs, strict=True)]
        rows.append([name, *(_number(value) for value in (*values, sum(values)))])

    row("TFLOPs", [cost.flops for cost in costs], 1e12)
    row("GB moved in memory", [cost.moved for cost in costs], 1e9)
    row("GB sent", [cost.sent for cost in costs], 1e9)
    for resource in ("compute", "memory", "interconnect"):
        row(f"s of {resource}", [cost.seconds[resource] for cost in costs], 1.0)
    row("s by roofline", [cost.roofline for cost in costs], 1.0)
    rows.append(["bound by", *(cost.bound for cost in costs), ""])
    return _table(rows)


def _collectives(plan: Plan) -> str:
    rows = [["collectives", "calls", "GB sent", "to other slices", "largest, MB"]]
    for program, cost in plan.costs.items():
        for kind, found in sorted(cost.collectives.items()):
            sent, far = found.bytes * cost.runs / 1e9, found.network_bytes * cost.runs / 1e9
            calls = f"{found.calls * cost.runs:.0f}"
            largest = _number(found.largest / 1e6)
            rows.append([f"{program}: {kind}", calls, _number(sent), _number(far), largest])
    return _table(rows) if len(rows) > 1 else ""


def _time(plan: Plan) -> str:
    chips = plan.topology.chips
    return (
        f"at least {_number(plan.step_seconds)} s a step, at most "
        f"{plan.tokens / plan.step_seconds:,.0f} tokens/s\n"
        f"{plan.total_steps} steps: at least {_number(plan.hours)} h, "
        f"{_number(plan.hours * chips)} chip hours\n"
        "(by roofline: whatever is not compute, memory or interconnect at its peak comes on top)"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    columns = max(map(len, rows))
    rows = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(columns)]
    lines = []
    for name, *cells in rows:
        shown = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([f"{name:{widths[0]}}", *shown]).rstrip())
    return "\n".join(lines)


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
