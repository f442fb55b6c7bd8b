"""What two makings of one run must have in common."""

import json
from pathlib import Path

import numpy as np
import pytest

TOLERANCE = {"rel": 1e-5, "abs": 1e-5}
GRADIENT = {"rel": 1e-4}  # its norm: sums of many terms that nearly cancel


def _lines(folder: Path, file: str) -> list:
    path = folder / file
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def metrics(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl without their times."""
    lines = []
    for line in _lines(folder, "metrics.jsonl"):
        line = {name: value for name, value in line.items() if not name.startswith("seconds_")}
        if abs(line.get("margin", 1.0)) < 1e-5:
            line.pop("accuracy", None)  # the sign of what is 0 but for rounding
        lines.append(line)
    return lines


def assert_close(found, expected, where="") -> None:
    """Trees of JSON: numbers to 1e-5, all else exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_close(found[name], value, f"{where}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_close(found[index], value, f"{where}/{index}")
    elif isinstance(expected, float):
        allowed = GRADIENT if where.endswith("/gradient_norm") else TOLERANCE
        assert found == pytest.approx(expected, **allowed), where
    else:
        assert found == expected, where


def assert_same(found: Path, expected: Path) -> None:
    """Metrics, outputs and reference scores to 1e-5; drawn tokens and texts exactly."""
    assert_close(metrics(found), metrics(expected), found.name)
    for file in ("texts.jsonl", "tokens.jsonl"):
        assert _lines(found, file) == _lines(expected, file), found / file
    for file in ("found.json", "reference_logprobs.npz"):
        assert (found / file).exists() == (expected / file).exists()
    if (expected / "found.json").exists():
        outputs = [json.loads((folder / "found.json").read_text()) for folder in (found, expected)]
        assert_close(*outputs, found.name)
    if (expected / "reference_logprobs.npz").exists():
        one, other = (np.load(folder / "reference_logprobs.npz") for folder in (found, expected))
        np.testing.assert_array_equal(one["keys"], other["keys"])
        np.testing.assert_allclose(one["values"], other["values"], rtol=1e-5, atol=1e-5)
