"""One evaluation as a tree of plain numbers and strings: what `report.json` holds.

win_rate -> policy -> opponent -> mean, low, high, n, ties
kl       -> policy -> mean, standard_error, low, high, n     (to the reference policy)
rouge    -> policy -> rouge1, rouge2, rougeL -> as kl        (if references are known)
length   -> policy -> as kl                                  (tokens, EOS included)
eos_rate -> policy -> number in [0, 1]
examples -> list of prompt, references, completions, preference over the reference policy
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
import json
import os
from pathlib import Path
from typing import Any

from po_jax.evaluation.intervals import Mean, mean_interval
from po_jax.evaluation.matches import Matches, position_bias, win_rates
from po_jax.evaluation.samples import Samples

Report = dict[str, Any]


def build_report(
    prompts: Sequence[str],
    samples: Mapping[str, Samples],
    matches: Matches,
    *,
    reference: str,
    judge: str,
    references: Sequence[Sequence[str]] | None = None,
    kl: Mapping[str, Mean] | None = None,
    rouge: Mapping[str, Mapping[str, Mean]] | None = None,
    examples: int = 12,
    config: Mapping[str, Any] | None = None,
) -> Report:
    """Gathers every figure about the policies that met.

    Args:
      prompts: the held-out prompts as text.
      samples: what each policy answered, by name; names keep this order in the report.
      matches: who won, from `judge_matches`.
      reference: name of the policy that the others started from.
      judge: who judged, in words.
      references: human texts for each prompt, to show beside the completions.
      kl: by policy, from `po_jax.evaluation.samples.sequence_kl`.
      rouge: by policy, from `po_jax.evaluation.rouge`.
      examples: how many prompts to show side by side, evenly spaced: not chosen by outcome.
      config: whatever a reader needs to repeat this; shown as it is.

    Raises:
      ValueError: if `reference` is not among the policies, or a figure is not finite.
    """
    if reference not in samples:
        raise ValueError(
            f"build_report: expected reference to be one of {list(samples)}, got {reference!r}"
        )
    report: Report = {
        "prompts": len(prompts),
        "policies": list(samples),
        "reference": reference,
        "judge": {"name": judge, "position_bias": position_bias(matches)},
        "win_rate": {
            name: {opponent: asdict(rate) for opponent, rate in against.items()}
            for name, against in win_rates(matches).items()
        },
        "kl": {name: asdict(value) for name, value in (kl or {}).items()},
        "length": {
            name: asdict(mean_interval(sample.lengths())) for name, sample in samples.items()
        },
        "eos_rate": {name: float(sample.ended().mean()) for name, sample in samples.items()},
    }
    if rouge is not None:
        report["rouge"] = {
            name: {measure: asdict(value) for measure, value in scores.items()}
            for name, scores in rouge.items()
        }
    over_reference = _preference_over(matches, reference)
    stride = max(1, len(prompts) // max(1, examples))
    report["examples"] = [
        {
            "prompt": prompts[i],
            "references": list(references[i]) if references is not None else [],
            "completions": {name: sample.text[i] for name, sample in samples.items()},
            "preference": {name: float(value[i]) for name, value in over_reference.items()},
        }
        for i in range(0, len(prompts), stride)[:examples]
    ]
    report["config"] = dict(config or {})
    return report


def _preference_over(matches: Matches, reference: str) -> dict[str, Any]:
    """name -> P(its completion > the reference policy's) on each prompt."""
    found = {}
    for (a, b), preference in matches.items():
        averaged = preference.mean(axis=1)
        if b == reference:
            found[a] = averaged
        elif a == reference:
            found[b] = 1.0 - averaged
    return found


def write_json(report: Report, path: Path) -> None:
    """Writes the report; a reader never sees half of it.

    Raises:
      ValueError: if a figure is not finite.
    """
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)
