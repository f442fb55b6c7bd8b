"""One evaluation as a tree of plain numbers and strings: what `report.json` holds.

win_rate -> policy -> opponent -> mean, low, high, n, ties
kl       -> policy -> mean, standard_error, low, high, n     (to the reference policy)
regulariser -> policy -> as kl                               (E[h^2] / 2 under mu, if asked for)
rouge    -> policy -> rouge1, rouge2, rougeL -> as kl        (in [0, 100]; if answers are known)
metrics  -> policy -> name -> number                         (the task's own, if it has some)
length   -> policy -> as kl                                  (tokens, EOS included)
eos_rate -> policy -> number in [0, 1]
by_length -> policy -> nearly_equal, length_controlled: its win rate over the reference policy where
            answers are nearly of one length, and as a regression predicts it for such; or null
best_of  -> policy -> n                                      (the best of the reference's n)
along    -> run -> list of step, policy, win_rate, kl, length, regulariser, one a checkpoint
training -> policy -> name -> steps, values                  (what its run recorded on the way)
judge    -> name, position_bias and flips or null, and calls, what became of them, if it was called
examples -> list of prompt, answers, completions, preference over the reference policy
"""

from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
from dataclasses import asdict, dataclass
import json
import math
from pathlib import Path
from typing import Any

from po_jax.evaluation.along import Stop, on_the_way
from po_jax.evaluation.intervals import Mean, WinRate, mean_interval
from po_jax.evaluation.length_bias import length_controlled, nearly_equal
from po_jax.evaluation.matches import Matches, flips, position_bias, win_rates
from po_jax.evaluation.prompts import Prompts
from po_jax.evaluation.samples import Samples
from po_jax.evaluation.training_curves import Curves
from po_jax.judges import CallRecord

Report = dict[str, Any]
#: The texts of prompts, by name, and a policy's completions to numbers by name.
Metrics = Callable[[Mapping[str, Sequence[Any]], Sequence[str]], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that is known about policies that met.

    Attributes:
      prompts: the held-out prompts.
      samples: what each policy answered, by name; names keep this order in the report.
      matches: who won, from `judge_matches`.
      reference: name of the policy that the others started from.
      judge: who judged.
      calls: what became of the judge's calls, if it is a function.
      kl: by policy, from `po_jax.evaluation.samples.sequence_kl`.
      regulariser: by policy, from `po_jax.evaluation.samples.offline_regulariser`.
      rouge: by policy and measure, in [0, 100].
      metrics: by policy and name.
      best_of: by policy, of how many completions of the reference it is the best.
      runs: checkpoints along the training of a run, by its name; all but the last of them met
        nobody but the reference.
      training: by policy, what its run recorded.

    Raises:
      ValueError: if `reference` is not among the policies.
    """

    prompts: Prompts
    samples: Mapping[str, Samples]
    matches: Matches
    reference: str
    judge: str
    calls: CallRecord | None = None
    kl: Mapping[str, Mean] | None = None
    regulariser: Mapping[str, Mean] = dataclasses.field(default_factory=dict)
    rouge: Mapping[str, Mapping[str, Mean]] | None = None
    metrics: Mapping[str, Mapping[str, float]] | None = None
    best_of: Mapping[str, int] = dataclasses.field(default_factory=dict)
    runs: Mapping[str, Sequence[Stop]] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Curves] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.reference not in self.samples:
            raise ValueError(
                f"Findings: expected reference to be one of {list(self.samples)}, got "
                f"{self.reference!r}"
            )

    @property
    def policies(self) -> list[str]:
        """All but the checkpoints on the way of a run."""
        left_out = on_the_way(self.runs)
        return [name for name in self.samples if name not in left_out]


def build_report(
    findings: Findings, examples: int = 12, config: Mapping[str, Any] | None = None
) -> Report:
    """Gathers every figure about the policies that met.

    Args:
      findings: what is known.
      examples: how many prompts to show side by side, evenly spaced: not chosen by outcome.
      config: whatever a reader needs to repeat this; shown as it is.
    """
    names = findings.policies
    samples = {name: findings.samples[name] for name in names}
    judge: dict[str, Any] = {
        "name": findings.judge,
        "position_bias": position_bias(findings.matches),
        "flips": flips(findings.matches),
    }
    if findings.calls is not None:
        judge["calls"] = asdict(findings.calls)
    rates = win_rates(findings.matches)
    report: Report = {
        "prompts": len(findings.prompts),
        "policies": names,
        "reference": findings.reference,
        "judge": judge,
        "win_rate": {
            name: {other: asdict(rate) for other, rate in rates[name].items() if other in names}
            for name in names
        },
        "kl": _each(findings.kl or {}, names),
        "regulariser": _each(findings.regulariser, names),
        "length": {
            name: asdict(mean_interval(sample.lengths())) for name, sample in samples.items()
        },
        "eos_rate": {name: float(sample.ended.mean()) for name, sample in samples.items()},
    }
    report["by_length"] = _by_length(findings)
    report["best_of"] = dict(findings.best_of)
    report["along"] = {
        run: [_stop(stop, findings, rates) for stop in stops]
        for run, stops in findings.runs.items()
    }
    report["training"] = {
        name: findings.training[name] for name in names if name in findings.training
    }
    if findings.rouge is not None:
        report["rouge"] = {name: _each(findings.rouge[name]) for name in names}
    if findings.metrics is not None:
        # A metric without an observation, such as an accuracy where all labels tie, is nan.
        report["metrics"] = {
            name: {m: value for m, value in findings.metrics[name].items() if math.isfinite(value)}
            for name in names
        }
    report["examples"] = _examples(findings, examples)
    report["config"] = dict(config or {})
    return report


def _each(figures: Mapping[str, Mean], names: Collection[str] | None = None) -> dict[str, Any]:
    return {name: asdict(x) for name, x in figures.items() if names is None or name in names}


def _stop(
    stop: Stop, findings: Findings, rates: Mapping[str, Mapping[str, WinRate]]
) -> dict[str, Any]:
    """A checkpoint on the way of a run against the reference."""
    name = stop.policy
    found = {
        "win_rate": rates[name][findings.reference],
        "kl": (findings.kl or {}).get(name),
        "regulariser": findings.regulariser.get(name),
        "length": mean_interval(findings.samples[name].lengths()),
    }
    known = {key: asdict(value) for key, value in found.items() if value is not None}
    return {"step": stop.step, "policy": name, **known}


def _examples(findings: Findings, count: int) -> list[dict[str, Any]]:
    over_reference = _preference_over(findings)
    prompts, answers = findings.prompts, findings.prompts.answers
    names = findings.policies
    stride = max(1, len(prompts) // max(1, count))
    return [
        {
            "prompt": prompts.inputs[i],
            "answers": [] if answers is None else list(answers[i]),
            "completions": {name: findings.samples[name].text[i] for name in names},
            "preference": {name: float(value[i]) for name, value in over_reference.items()},
        }
        for i in range(0, len(prompts), stride)[:count]
    ]


def _by_length(findings: Findings) -> dict[str, dict[str, Any]]:
    lengths = {name: sample.lengths() for name, sample in findings.samples.items()}
    other = lengths[findings.reference]
    found = {}
    for name, preference in _preference_over(findings).items():
        rates = {
            "nearly_equal": nearly_equal(preference, lengths[name], other),
            "length_controlled": length_controlled(preference, lengths[name] - other),
        }
        found[name] = {key: rate and asdict(rate) for key, rate in rates.items()}
    return found


def _preference_over(findings: Findings) -> dict[str, Any]:
    """name -> P(its completion > the reference policy's) on each prompt; of all `policies`."""
    reference, names = findings.reference, findings.policies
    found = {}
    for (a, b), preference in findings.matches.items():
        of_prompt = preference.mean(axis=1)
        if b == reference and a in names:
            found[a] = of_prompt
        elif a == reference and b in names:
            found[b] = 1.0 - of_prompt
    return found


def write_json(report: Report, path: Path) -> None:
    """Writes the report.

    Raises:
      ValueError: if a figure is not finite.
    """
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")
