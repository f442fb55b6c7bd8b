"""Compares policies on held-out prompts: win rates with intervals, KL, ROUGE, lengths, examples.

    python -m launch.evaluate \\
      --gin_file=gin/models/t5_1_1/small.gin --gin_file=gin/runs/evaluate.gin \\
      --gin.POLICIES="{'sft': 'runs/sft', 'ipo_md': 'runs/ipo_md'}" \\
      --gin.OUTPUT_DIR=runs/report ...

Writes report.json, report.html (one file, to be opened anywhere), a PNG of each figure, and
config.gin, the configuration that was in force. A report that is there is replaced only with
--overwrite.
"""

from argparse import Namespace
from collections.abc import Sequence
import logging
from pathlib import Path
import sys
from typing import Any

from launch import command_line, gin_support, outputs


def write(report: dict[str, Any], folder: Path, title: str) -> None:
    """Writes the report in all its forms."""
    from po_jax.evaluation import plots
    from po_jax.evaluation.page import html_page
    from po_jax.evaluation.report import write_json

    figures = plots.figures(report)
    for name, figure in figures.items():
        plots.write_png(figure, folder / f"{name}.png")
    drawn = {name: plots.svg(figure) for name, figure in figures.items()}
    (folder / "report.html").write_text(html_page(report, drawn, title), encoding="utf-8")
    write_json(report, folder / "report.json")


def summary(report: dict[str, Any]) -> str:
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
            f"KL {report['kl'][name]['mean']:z.2f}"
        )
    return "\n".join(lines)


def evaluate(arguments: Namespace) -> None:
    """Runs the configured comparison and writes what it found."""
    import gin

    from launch import settings
    from po_jax import judges, processes
    from po_jax.evaluation import side_by_side

    for room in (side_by_side, judges):
        logging.getLogger(room.__name__).setLevel(logging.INFO)
    folder = gin_support.call(outputs.new_folder, overwrite=arguments.overwrite)
    gin_support.call(settings.check_checkpoints)
    report = gin_support.call(side_by_side.SideBySide).report()
    configuration = gin.operative_config_str()
    report["config"]["gin"] = configuration
    if processes.index() > 0:
        return
    with outputs.written_whole(folder) as beside:
        (beside / "config.gin").write_text(configuration)
        write(report, beside, str(gin.query_parameter("TITLE/macro.value")))
    print(f"{summary(report)}\n{folder / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return gin_support.run(
        evaluate, argv, __doc__, runs=["gin/runs/evaluate.gin"], options=command_line.overwrite
    )


if __name__ == "__main__":
    sys.exit(main())
