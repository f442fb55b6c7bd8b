"""The recipe of docs/t5x.md, run as it stands there."""

import json
import os
import re
import subprocess

import pytest

pytest.importorskip(
    "t5x.train", reason="needs T5X, which no package index holds", exc_type=ImportError
)

from tests.t5x.commands import ROOT, write_data  # noqa: E402


def commands():
    page = (ROOT / "docs" / "t5x.md").read_text()
    recipe = page.split("## An own task, from nothing to IPO-MD")[1].split("\n## ")[0]
    return re.findall(r"^ *```sh\n(.*?)^ *```$", recipe, re.M | re.S)


def test_from_json_lines_to_completions(tmp_path):
    write_data(tmp_path / "data")
    found = commands()
    assert len(found) == 4 and found[0].startswith("export ")
    script = "\n".join(["set -e", *found]).replace("python -m t5x", f"{os.sys.executable} -m t5x")
    script = script.replace(".infer ", f".infer --gin_search_paths={ROOT} ")
    script = script.replace(".train ", f".train --gin_search_paths={ROOT} ")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (answers,) = (tmp_path / "runs" / "answers").glob("*-predict.jsonl-?????-of-?????")
    assert len(answers.read_text().splitlines()) == 5
    metrics = tmp_path / "runs/judge/inference_eval/jsonl_comparisons-metrics.jsonl"
    assert 0 <= json.loads(metrics.read_text().splitlines()[-1])["preference_accuracy"] <= 1
    assert (tmp_path / "runs" / "ipo_md" / "checkpoint_2").is_dir()
