"""IPO-MD of adapters by the launcher's own commands, and what comes out of it."""

import json
from pathlib import Path

import gin
import numpy as np
import pytest

from launch import convert, train
from po_jax.checkpoints.load import open_checkpoint
from tests.launch.test_recipe import write_inputs

FILES = [
    "gin/models/t5_1_1/tiny.gin",
    "gin/runs/online.gin",
    "gin/algorithms/ipo_md.gin",
    "gin/runs/lora.gin",
]
SETTINGS = {
    "MIXTURE_OR_TASK_MODULE": "tasks.jsonl",
    "MIXTURE_OR_TASK_NAME": "jsonl_prompts",
    "TASK_FEATURE_LENGTHS": '{"inputs": 16, "targets": 4}',
    "INITIAL_CHECKPOINT_PATH": "flan-t5-base",
    "JUDGE_CHECKPOINT_PATH": "flan-t5-base",
    "LORA_RANK": "2",
    "BATCH_SIZE": "8",
    "TRAIN_STEPS": "2",
    "EVAL_BATCHES": "1",
}


@pytest.mark.slow
def test_a_policy_with_an_adapter_there_and_back(tmp_path, monkeypatch, relaxed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PO_JAX_JSONL_DIR", "data")
    monkeypatch.setenv("PO_JAX_VOCABULARY", "bytes")
    before = write_inputs()
    arguments = [f"--gin_file={name}" for name in FILES]
    arguments += [f"--gin.{name}={value}" for name, value in SETTINGS.items()]

    def policy(start, folder):
        own = [f"--gin.INITIAL_CHECKPOINT_PATH={start}", f"--gin.MODEL_DIR={folder}"]
        with relaxed():  # optax's AdamW promotes
            status = train.main([*arguments, *own])
        gin.clear_config()
        assert status == 0
        lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").open()]
        start = next(line for line in lines if line["split"] == "held_out")
        # At its start the policy is its reference: with the adapter, where the start has one.
        assert start["step"] == 0 and start["kl"] == 0.0
        assert all(np.isfinite(line["loss"]) for line in lines if line["split"] == "train")

    policy("flan-t5-base", "runs/first")
    policy("runs/first", "runs/second")
    first, second = (open_checkpoint(f"runs/{name}") for name in ("first", "second"))
    assert first.base.path == second.base.path == open_checkpoint("flan-t5-base").path
    # Two steps of 1e-4 on a base that bfloat16 rounds: the whole model comes back as float32.
    assert convert.main(["--from=runs/second", "--to=aligned", "--format=hugging_face"]) == 0
    aligned = open_checkpoint("aligned").parameters
    assert aligned.keys() == before.keys()
    rounded = {name: np.abs(leaf.value() - before[name]) for name, leaf in aligned.items()}
    assert all((x <= 0.01 * np.abs(before[n]) + 1e-2).all() for n, x in rounded.items())
    assert convert.main(["--from=runs/second", "--to=adapter", "--format=peft"]) == 0
    assert json.loads(Path("adapter/adapter_config.json").read_text())["lora_alpha"] == 16.0
