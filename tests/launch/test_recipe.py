"""The recipe of docs/checkpoints.md: a Hugging Face T5, IPO-MD, and back, in three commands."""

import json
from pathlib import Path
import re
import shlex
import textwrap

from etils import epath
import numpy as np
import pytest

from launch import convert, gin_support, train
from po_jax.checkpoints import describe, tokenizer
from po_jax.checkpoints.load import open_checkpoint
from tests.launch import hub_t5

DOCS = Path(__file__).resolve().parents[2] / "docs"
SMALL = {  # What makes the recipe's own commands quick.
    "gin/models/t5_1_1/base.gin": "gin/models/t5_1_1/tiny.gin",
    '{"inputs": 512, "targets": 64}': '{"inputs": 16, "targets": 4}',
    "TRAIN_STEPS = 1000": "TRAIN_STEPS = 1\nBATCH_SIZE = 8",
    'JUDGE_CHECKPOINT_PATH = "runs/judge"': 'JUDGE_CHECKPOINT_PATH = "flan-t5-base"',
}


def follow(page, small):
    """Writes the gin files of a page's recipe; returns the arguments of each of its commands."""
    section = (DOCS / page).read_text().split("and back\n")[1].split("\n## ")[0]
    blocks = re.findall(r"`(\w+\.gin)`:\n\n +```python\n(.*?)```", section, re.S)
    for name, block in blocks:
        for old, new in small.items():
            block = block.replace(old, new)
        Path(name).write_text(textwrap.dedent(block))
    commands = re.findall(r"```sh\n +python -m launch\.\w+ (.*?)```", section, re.S)
    return [shlex.split(command.replace("\\\n", " ")) for command in commands]


def write_inputs():
    """A small T5 and comparisons, in the working directory."""
    directory = epath.Path("flan-t5-base")
    parameters = hub_t5.write(directory)
    tokenizer.write(directory, tokenizer.BYTES, embedding_rows=hub_t5.CONFIG.vocab_size)
    write_comparisons()
    return parameters


def write_comparisons():
    """Forty, thirty-two and one, in the folder `data`."""
    Path("data").mkdir()
    for split, count in (("train", 40), ("validation", 32), ("test", 1)):
        rows = [
            {"prompt": f"question {i}", "chosen": f"answer {i}", "rejected": "no"}
            for i in range(count)
        ]
        Path("data", f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.slow
def test_three_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PO_JAX_JSONL_DIR", "data")
    monkeypatch.setenv("PO_JAX_VOCABULARY", "bytes")
    before = write_inputs()
    judge, policy, back = follow("checkpoints.md", SMALL)
    # The untrained T5 stands in for the judge, whose command is only read: tests/training trains.
    gin_support.parse(judge, "")
    assert train.main(policy) == 0
    assert convert.main(back) == 0
    aligned = open_checkpoint("aligned")
    assert aligned.config == hub_t5.CONFIG
    assert describe.parameter_shapes(hub_t5.CONFIG).keys() == before.keys()
    moved = [np.abs(leaf.value() - before[n]).max() for n, leaf in aligned.parameters.items()]
    assert max(moved) > 0 and np.isfinite(moved).all()
    assert tokenizer.present(aligned.path)
