"""A report as one HTML page that needs no other file and no network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
import json
from typing import Any

from po_jax.evaluation.report import Report
from po_jax.judges import CallRecord

CAPTIONS = {
    "win_rate_matrix": "Every policy against every other",
    "win_rates_over_reference": "Win rate over the start",
    "win_rate_against_kl": "What was gained, and how far the policy moved for it",
    "along_training": "Along the training",
    "training_curves": "What the runs recorded while they trained",
}

OF_TRAINING = ("along_training", "training_curves")
MANY = 5  # policies beyond which the matrix takes the page's whole width

STYLE = """
:root { --ink: #1f2933; --faint: #616e7c; --line: #e4e7eb; --ground: #f5f7fa; --blue: #2166ac; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
p.lead { font-size: 1.1rem; max-width: 46rem; margin: 0 0 .25rem; }
p.note, figcaption, .faint { color: var(--faint); font-size: .9rem; }
.card, figure { background: white; border: 1px solid var(--line); border-radius: 10px;
                padding: 1rem 1.25rem; margin: 0; }
.figures { display: grid; gap: 1rem; grid-template-columns: 1fr 1fr; }
.figures figure:first-child { grid-row: span 2; display: flex; flex-direction: column; }
.figures.many figure:first-child { grid-column: 1 / -1; grid-row: auto; }
.wide { display: grid; gap: 1rem; }
figure img { width: 100%; margin: auto 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--faint); font-weight: 600; font-size: .85rem; }
tbody tr:last-child td { border-bottom: 0; }
td small { color: var(--faint); white-space: nowrap; }
.scroll { overflow-x: auto; }
.example { margin-bottom: 1rem; }
.prompt { max-height: 9.5rem; overflow-y: auto; white-space: pre-wrap; color: var(--faint);
          font-size: .9rem; border-left: 3px solid var(--line); padding-left: .9rem; }
.answers { display: grid; grid-template-columns: max-content 1fr max-content; gap: .35rem 1rem;
           margin: .9rem 0 0; align-items: baseline; }
.answers dt { font-weight: 600; font-size: .9rem; }
.answers dd { margin: 0; overflow-wrap: anywhere; }
.answers .human { color: var(--faint); font-style: italic; }
.badge { font-size: .8rem; border-radius: 99px; padding: .05rem .6rem; background: var(--ground); }
.badge.won { background: #d1e5f0; color: #134b7c; }
.badge.lost { background: #fddbc7; color: #8a1425; }
pre { overflow-x: auto; font-size: .85rem; margin: .75rem 0 0; }
h3 { font-size: .9rem; color: var(--faint); margin: 1rem 0 0; }
summary { cursor: pointer; font-weight: 600; }
@media screen and (max-width: 760px) { .figures { grid-template-columns: 1fr; }
  .answers { grid-template-columns: 1fr; } .answers dt { margin-top: .5rem; } }
@media print {
  @page { margin: 12mm; }
  :root { font-size: 11px; }
  body { background: white; font-size: 1rem; }
  main { max-width: none; padding: 0; }
  th, td { padding: .3rem .4rem; }
  .scroll, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
  .prompt { max-height: none; }
  figure img { max-height: 165mm; object-fit: contain; }
  figure, .example, tr, h2, h3 { break-inside: avoid; }
  h2, h3, summary { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def html_page(report: Report, figures: Mapping[str, str], title: str) -> str:
    """The whole page.

    Args:
      report: from `build_report`.
      figures: SVG text by the name of the figure, as `plots.figures` names them.
      title: shown at the top, as plain text.
    """
    return document(
        title,
        f"""{_lead(report)}
<h2>Win rates</h2>
<div class="figures{" many" if len(report["policies"]) > MANY else ""}">
{_pictures({name: svg for name, svg in figures.items() if name not in OF_TRAINING})}
</div>
{_training({name: svg for name, svg in figures.items() if name in OF_TRAINING})}
<h2>The figures</h2>
{_table(report)}
<h2>Side by side</h2>
<p class="note">Prompts are evenly spaced through the held-out set, not chosen by outcome. The badge
says whether the judge preferred the completion to that of {escape(report["reference"])}.</p>
{"".join(_example(example, report) for example in report["examples"])}
<h2>To repeat this</h2>
<details class="card"><summary>Configuration</summary>{_config(report["config"])}</details>""",
    )


def document(title: str, body: str) -> str:
    """A page with its style: what stands below its heading is given in HTML."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls: its heads as plain text, its cells in HTML."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"""<div class="card scroll"><table>
<thead><tr>{"".join(f"<th>{escape(head)}</th>" for head in heads)}</tr></thead>
<tbody>{body}</tbody></table></div>"""


def _lead(report: Report) -> str:
    reference = report["reference"]
    others = [name for name in report["policies"] if name != reference]
    best = max(others, key=lambda name: report["win_rate"][name][reference]["mean"])
    rate = report["win_rate"][best][reference]
    verb = "is preferred to" if rate["low"] > 0.5 else "is not clearly better than"
    kl = f", at a KL of {report['kl'][best]['mean']:z.2f} nats" if best in report["kl"] else ""
    chosen, caution = "", ""
    if len(others) > 1:
        chosen = f", the best of {len(others)},"
        caution = (
            '<p class="note">It was chosen by these very prompts, which flatters it: fresh ones '
            "would tell.</p>"
        )
    return f"""<p class="lead"><b>{escape(best)}</b>{chosen} {verb} <b>{escape(reference)}</b>:
win rate {percent(rate["mean"])} (95% interval {percent(rate["low"])} to
{percent(rate["high"])}) on {report["prompts"]} held-out prompts{kl}.</p>{caution}
{_judge(report["judge"])}"""


def _judge(judge: Mapping[str, Any]) -> str:
    """Who judged, how it was asked, and what became of its calls."""
    bias = judge["position_bias"]
    orders = "The place of an answer does not matter to it."
    if bias is not None:
        points = f"{100 * bias:+z.1f}"
        favour = "favours neither place"
        if points != "+0.0":
            favour = (
                f"favours the completion it reads first by {points} points; averaging the orders "
                "removes that"
            )
        orders = f"It was asked in both orders, and {favour}."
        if judge.get("flips") is not None:
            orders += f" {percent(judge['flips'])} of its verdicts turn round with the order."
    note = f'<p class="note">Judge: {escape(judge["name"])}. {orders}</p>'
    if "calls" in judge:
        note += f'\n<p class="note">Calls: {escape(str(CallRecord(**judge["calls"])))}.</p>'
    return note


def _training(figures: Mapping[str, str]) -> str:
    return f'<h2>Training</h2>\n<div class="wide">{_pictures(figures)}</div>' if figures else ""


def _pictures(figures: Mapping[str, str]) -> str:
    return "".join(picture(CAPTIONS.get(name, name), svg) for name, svg in figures.items())


def picture(caption: str, svg: str) -> str:
    """A figure with its caption, which holds the picture itself."""
    data = base64.b64encode(svg.encode()).decode()
    caption = escape(caption)
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<img alt="{caption}" src="data:image/svg+xml;base64,{data}"></figure>\n'
    )


def _table(report: Report) -> str:
    rouge = report.get("rouge", {})
    measures = list(next(iter(rouge.values()), {}))
    heads = ["policy", f"win rate over {report['reference']}", "ties", "KL (nats)"]
    regulariser = report.get("regulariser", {})
    heads += ["E[h²] / 2"] if regulariser else []
    heads += [measure.replace("rouge", "ROUGE-") for measure in measures]
    metrics = report.get("metrics", {})
    own = list(dict.fromkeys(metric for values in metrics.values() for metric in values))
    heads += own
    by_length = report.get("by_length", {})
    heads += ["at equal length", "length (tokens)", "ended by EOS"]
    rows = []
    for name in report["policies"]:
        rate = report["win_rate"][name].get(report["reference"])
        kl = report["kl"].get(name)
        cells = [f"<b>{escape(name)}</b>"]
        cells += (
            [f"{percent(rate['mean'])} {interval(rate)}", percent(rate["ties"])]
            if rate
            else ["–", "–"]
        )
        cells.append(
            f"{kl['mean']:z.2f} <small>± {kl['standard_error']:.2f}</small>" if kl else "–"
        )
        if regulariser:
            own_half = regulariser.get(name)
            cells.append(f"{own_half['mean']:.2f}" if own_half else "–")
        cells += [f"{rouge[name][measure]['mean']:.1f}" for measure in measures]
        cells += [
            f"{metrics[name][metric]:z.4g}" if metric in metrics[name] else "" for metric in own
        ]
        controlled = by_length.get(name, {}).get("length_controlled")
        cells.append(f"{percent(controlled['mean'])} {interval(controlled)}" if controlled else "–")
        cells.append(f"{report['length'][name]['mean']:.1f}")
        cells.append(percent(report["eos_rate"][name]))
        rows.append(cells)
    note = ""
    if report.get("best_of"):
        note = " KL of a best of n: log n − (n − 1)/n, which it does not exceed."
    return f"""{table(heads, rows)}
<p class="note">Brackets: 95% intervals over prompts. ±: standard error.
ROUGE: F-measure × 100. At equal length: the win rate that a regression on the
difference of lengths predicts at none.{note}</p>"""


def _example(example: Mapping[str, Any], report: Report) -> str:
    answers = [
        f'<dt class="human">author</dt><dd class="human">{escape(text)}</dd><span></span>'
        for text in example["answers"]
    ]
    for name in report["policies"]:
        text = escape(example["completions"][name]) or '<span class="faint">(empty)</span>'
        badge = _badge(example["preference"].get(name))
        answers.append(f"<dt>{escape(name)}</dt><dd>{text}</dd><span>{badge}</span>")
    return f"""<div class="card example"><div class="prompt">{escape(example["prompt"])}</div>
<dl class="answers">{"".join(answers)}</dl></div>
"""


def _config(config: Mapping[str, Any]) -> str:
    """Texts, such as a gin file, as they are; other values as JSON."""
    parts = []
    for name, value in config.items():
        shown = value if isinstance(value, str) else json.dumps(value, indent=2, default=str)
        parts.append(f"<h3>{escape(name)}</h3><pre>{escape(shown)}</pre>")
    return "".join(parts)


def _badge(preference: float | None) -> str:
    if preference is None:
        return ""
    outcome = "won" if preference > 0.5 else "lost" if preference < 0.5 else "tie"
    shown = outcome if preference in (0.0, 0.5, 1.0) else f"{outcome} {preference:.2f}"
    return f'<span class="badge {outcome}">{shown}</span>'


def percent(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f}%"


def interval(rate: Mapping[str, Any]) -> str:
    """The interval of a share, in percent, in brackets."""
    return f"<small>[{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]</small>"
