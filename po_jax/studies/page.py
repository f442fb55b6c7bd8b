"""A study as one HTML page that needs no other file but the reports that it links to."""

from collections.abc import Mapping, Sequence
import dataclasses
from html import escape

from po_jax.evaluation.page import document, interval, percent, picture, table
from po_jax.studies.results import Point, Results


@dataclasses.dataclass(frozen=True)
class Line:
    """What the page says of a cell.

    Attributes:
      name: of stage and options.
      state: "done", or what became of it.
      command: that makes it.
      report: the address of its report, from the page; None if it has none.
    """

    name: str
    state: str
    command: str
    report: str | None = None


def study_page(
    title: str,
    text: str,
    figures: Mapping[str, str],
    results: Results,
    lines: Sequence[Line],
) -> str:
    """The whole page.

    Args:
      title, text: what is studied, as plain text; an empty line begins a paragraph.
      figures: SVG text by caption.
      results: of which every evaluation has a table.
      lines: one a cell.
    """
    done = sum(line.state == "done" for line in lines)
    undone = "".join(
        f"<li><b>{escape(line.name)}</b>: {escape(line.state)}</li>"
        for line in lines
        if line.state != "done"
    )
    paragraphs = "".join(f"<p>{escape(part)}</p>" for part in text.strip().split("\n\n") if part)
    tables = "".join(_table(stage, results.points(stage)) for stage in results.evaluations)
    return document(
        title,
        f"""{paragraphs}
<p class="note">{done} of {len(lines)} cells are done.</p>
{f"<ul>{undone}</ul>" if undone else ""}
<div class="wide">{"".join(picture(caption, svg) for caption, svg in figures.items())}</div>
{tables}
<h2>Every cell</h2>
{"".join(map(_cell, lines))}""",
    )


def _table(stage: str, points: Sequence[Point]) -> str:
    if not points:
        return ""
    axes = list(dict.fromkeys(axis for point in points for axis in point.options))
    extra = [name for name in ("regulariser",) if any(name in point.figures for point in points)]
    steps = any(point.step is not None for point in points)
    heads = [*axes, *(["step"] if steps else []), "win rate over the start", "KL (nats)"]
    heads += ["E[h²] / 2"] * len(extra) + ["length (tokens)"]
    rows = []
    for point in points:
        cells = [escape(point.options.get(axis, "")) for axis in axes]
        cells += [str(point.step)] if steps else []
        rate = point.figures["win_rate"]
        cells.append(f"{percent(rate['mean'])} {interval(rate)}")
        for name in ("kl", *extra, "length"):
            figure = point.figures.get(name)
            cells.append(f"{figure['mean']:z.2f}" if figure else "–")
        rows.append(cells)
    return f"<h2>{escape(stage)}</h2>\n{table(heads, rows)}\n"


def _cell(line: Line) -> str:
    link = f' <a href="{escape(line.report)}">report</a>' if line.report else ""
    return f"""<details class="card"><summary>{escape(line.name)}
<span class="faint">{escape(line.state)}</span>{link}</summary>
<pre>{escape(line.command)}</pre></details>
"""
