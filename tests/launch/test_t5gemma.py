"""The recipe of docs/t5gemma.md: a Hugging Face T5Gemma, IPO-MD, and back, by its own commands."""

import json
from pathlib import Path

from etils import epath
import gin
import numpy as np
import pytest

from launch import convert, gin_support, train
from po_jax.checkpoints import tokenizer
from po_jax.checkpoints.load import open_checkpoint
from tests.launch import hub_t5gemma
from tests.launch.test_recipe import follow, write_comparisons

FAMILIES = {  # name: (network, its gin file)
    "t5gemma": (hub_t5gemma.CONFIG, hub_t5gemma.GIN),
    "t5gemma2": (hub_t5gemma.SECOND, hub_t5gemma.SECOND_GIN),
}
HUB = "t5gemma-b-b-prefixlm-it"
SMALL = {  # What makes the recipe's own commands quick.
    "gin/models/t5gemma/base.gin": "tiny.gin",
    '{"inputs": 512, "targets": 64}': '{"inputs": 16, "targets": 4}',
    "TRAIN_STEPS = 1000": "TRAIN_STEPS = 1\nBATCH_SIZE = 8\nEVAL_BATCHES = 1",
    'JUDGE_CHECKPOINT_PATH = "runs/judge"': f'JUDGE_CHECKPOINT_PATH = "{HUB}"',
}


@pytest.fixture
def inputs(request, tmp_path, monkeypatch):
    """A small T5Gemma and comparisons, in the working directory; its family and parameters."""
    family = getattr(request, "param", "t5gemma")
    config, file = FAMILIES[family]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PO_JAX_JSONL_DIR", "data")
    monkeypatch.setenv("PO_JAX_VOCABULARY", "bytes")
    Path("tiny.gin").write_text(file)
    directory = epath.Path(HUB)
    before = hub_t5gemma.write(directory, config, family)
    tokenizer.write(directory, tokenizer.BYTES, embedding_rows=config.vocab_size)
    write_comparisons()
    yield family, before
    gin.clear_config()


@pytest.mark.slow
@pytest.mark.parametrize("inputs", FAMILIES, indirect=True)
def test_three_commands(inputs):
    family, before = inputs
    judge, policy, back = follow("t5gemma.md", SMALL)
    # The untrained T5Gemma stands in for the judge, whose command is only read.
    gin_support.parse(judge, "")
    assert train.main(policy) == 0
    lines = [json.loads(line) for line in Path("runs/ipo_md/metrics.jsonl").open()]
    assert {line["split"] for line in lines} == {"train", "held_out"}
    assert all(np.isfinite(line["loss"]) for line in lines if line["split"] == "train")
    start = next(line for line in lines if line["split"] == "held_out")
    assert start["step"] == 0 and start["kl"] == 0.0
    assert convert.main(back) == 0
    aligned = open_checkpoint("aligned")
    assert (aligned.config, aligned.family) == (FAMILIES[family][0], family)
    assert aligned.about.special_ids == hub_t5gemma.IDS
    assert aligned.parameters.keys() == before.keys()
    moved = [np.abs(leaf.value() - before[n]).max() for n, leaf in aligned.parameters.items()]
    assert max(moved) > 0 and np.isfinite(moved).all()
    assert tokenizer.present(aligned.path)


def test_a_checkpoint_with_another_start_is_refused(inputs, capsys):
    file = Path(HUB, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"decoder_start_token_id": 3}))
    _, policy, _ = follow("t5gemma.md", SMALL)
    assert train.main(policy) == 1
    assert "start=2), got SpecialIds(pad=0, eos=1, start=3)" in capsys.readouterr().err
