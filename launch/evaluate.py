"""Compares policies on held-out prompts: win rates with intervals, KL, ROUGE, lengths, examples.

    python -m launch.evaluate \\
      --gin_file=gin/models/t5_1_1/small.gin --gin_file=gin/runs/evaluate.gin \\
      --gin.POLICIES="{'sft': 'runs/sft', 'ipo_md': 'runs/ipo_md'}" \\
      --gin.OUTPUT_DIR="'runs/report'" ...

Writes report.json, report.html (one file, to be opened anywhere), a PNG of each figure, and
config.gin, the configuration that was in force.
"""

from collections.abc import Sequence
import logging
from pathlib import Path
import sys

import gin

from launch import gin_support
from po_jax.evaluation import plots, side_by_side
from po_jax.evaluation.page import html_page
from po_jax.evaluation.report import Report, write_json
from po_jax.judges import JudgeError


def write(report: Report, folder: Path, title: str) -> None:
    """Writes the report in all its forms."""
    figures = plots.figures(report)
    for name, figure in figures.items():
        plots.write_png(figure, folder / f"{name}.png")
    drawn = {name: plots.svg(figure) for name, figure in figures.items()}
    (folder / "report.html").write_text(html_page(report, drawn, title), encoding="utf-8")
    write_json(report, folder / "report.json")


def summary(report: Report) -> str:
    """The win rates over the reference, a line a policy."""
    reference = report["reference"]
    width = max(map(len, report["policies"]))
    lines = []
    for name in report["policies"]:
        if name == reference:
            continue
        rate = report["win_rate"][name][reference]
        lines.append(
            f"{name:{width}}  preferred to {reference}: {rate['mean']:.3f} "
            f"[{rate['low']:.3f}, {rate['high']:.3f}], n = {rate['n']}, "
            f"KL {report['kl'][name]['mean']:.2f}"
        )
    return "\n".join(lines)


def evaluate() -> Report:
    """Runs the configured comparison and writes what it found."""
    folder = Path(gin.query_parameter("OUTPUT_DIR/macro.value"))
    folder.mkdir(parents=True, exist_ok=True)
    report = gin.get_configurable(side_by_side.SideBySide)().report()
    configuration = gin.operative_config_str()
    report["config"]["gin"] = configuration
    (folder / "config.gin").write_text(configuration)
    write(report, folder, gin.query_parameter("TITLE/macro.value"))
    print(f"{summary(report)}\n{folder / 'report.html'}")
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger(side_by_side.__name__).setLevel(logging.INFO)
    try:
        gin_support.parse(argv, __doc__)
        evaluate()
    except (ValueError, JudgeError) as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
