"""What users add of their own, each in one place and its gin file, through the real launchers."""

import json

import gin
import jax
import pytest

from launch import evaluate, train
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.t5.config import T5Config
from po_jax.t5.language_model import T5LM
from tests.launch import tiny_policies

MODULE = '''
from pathlib import Path

import jax.numpy as jnp
import seqio

from po_jax.sampling import Strategy
from tasks import registration, vocabularies


def welsch(margin, preference, *, tau):
    """1 - exp(-(h - (2p - 1) / (2 tau))^2): a loss."""
    return 1.0 - jnp.exp(-jnp.square(margin - (preference - 0.5) / tau) / 50.0)


class MinP(Strategy):
    """A sampling strategy: keeps what is at least a tenth as probable as the most probable."""

    def weights(self, logits):
        weights = super().weights(logits)
        return jnp.where(weights >= 0.1, weights, 0.0)


class Csv:
    """A writer."""

    def __init__(self, directory, step=None):
        self._path = Path(directory) / "metrics.csv"

    def scalars(self, step, split, values):
        with self._path.open("a") as file:
            file.writelines(f"{step},{split},{name},{x}\\n" for name, x in values.items())

    def text(self, step, name, text):
        pass


def words(targets, predictions):
    """An evaluation metric: words of a prediction, and of a target."""
    total = sum(len(text.split()) for text in predictions)
    return {"words": total / len(predictions), "target_words": len(targets[0].split())}


if "mine" not in seqio.TaskRegistry.names():
    rows = [{"inputs": f"Text {i} says little.", "answers": [f"Return {i}."]} for i in range(9)]
    seqio.TaskRegistry.add(
        "mine",
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: registration._dataset(rows),
            splits=registration.SPLITS,
        ),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"inputs": seqio.Feature(vocabularies.docstrings())},
        metric_fns=[words],
    )
'''
TASK = """
MIXTURE_OR_TASK_NAME = "mine"
MIXTURE_OR_TASK_MODULE = "my_extensions"
TASK_FEATURE_LENGTHS = {"inputs": 16, "targets": 6}
BATCH_SIZE = 8
"""
ONLINE = """
from __gin__ import dynamic_registration
import my_extensions
import optax
from po_jax.losses import objectives
from po_jax.reporting import writers

include "model.gin"
include "gin/runs/online.gin"
include "gin/algorithms/ipo_md.gin"

objectives.contrastive.loss = @my_extensions.welsch
WRITERS = [@writers.JsonLines, @my_extensions.Csv]
OPTIMIZER = @optax.lion()
optax.lion.learning_rate = %LEARNING_RATE
TAU = @tau/optax.linear_schedule()
tau/optax.linear_schedule:
  init_value = 0.1
  end_value = 0.5
  transition_steps = 4
BETA = @beta/optax.linear_schedule()
beta/optax.linear_schedule:
  init_value = 0.0
  end_value = 1.0
  transition_steps = 4
TRAIN_STEPS = 2
LOG_PERIOD = 1
EVAL_BATCHES = 1
INITIAL_CHECKPOINT_PATH = "sft"
"""
OTHER_JUDGE = """
include "gin/runs/judge_of_other_vocabulary.gin"

JUDGE_VOCABULARY_PATH = "bytes"
JUDGE_FEATURE_LENGTHS = {"inputs": 32, "targets": 24}
JUDGE_CHECKPOINT_PATH = "judge"
judge/config.T5Config:
  vocab_size = 384
  emb_dim = 6
"""
EVALUATION = """
from __gin__ import dynamic_registration
import my_extensions

include "model.gin"
include "gin/runs/evaluate.gin"

STRATEGY = @my_extensions.MinP()
my_extensions.MinP.max_length = 6
POLICIES = {"sft": "sft", "other": "other"}
OUTPUT_DIR = "report"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_extensions.py").write_text(MODULE)
    tiny_policies.write(tmp_path, {"sft": 0, "other": 1})
    config = {**vars(tiny_policies.MODEL.config), "vocab_size": 384, "emb_dim": 6}
    manager = CheckpointManager(tmp_path / "judge")
    manager.save(3, {"params": jax.jit(T5LM(T5Config(**config)).init)(jax.random.key(2))})
    manager.close()
    yield tmp_path
    gin.clear_config()


def test_training_takes_a_loss_a_writer_an_optimiser_schedules_and_a_judge_of_other_ids(folder):
    (folder / "run.gin").write_text(ONLINE + TASK)
    (folder / "judge.gin").write_text(OTHER_JUDGE)
    files = ["--gin_file=run.gin", "--gin_file=judge.gin"]
    assert train.main([*files, "--gin.MODEL_DIR=run"]) == 0
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    _, first, second, held_out = lines  # how the start does comes first
    assert (first["beta"], second["beta"]) == (0.0, 0.25)
    # h = 0 at the start: with tau = 0.1 the loss of p is 1 - exp(-(10 p - 5)^2 / 50).
    assert 0.0 < first["loss"] < 1.0 and "win_rate" in held_out
    rows = (folder / "run" / "metrics.csv").read_text().splitlines()
    assert f"2,train,loss,{second['loss']}" in rows
    configuration = (folder / "run" / "config.gin").read_text()
    assert "optax.lion" in configuration and "OtherVocabularyJudge" in configuration


def test_evaluation_takes_a_sampling_strategy_and_a_tasks_metrics(folder):
    (folder / "report.gin").write_text(EVALUATION + TASK)
    assert evaluate.main(["--gin_file=report.gin"]) == 0
    report = json.loads((folder / "report" / "report.json").read_text())
    assert report["metrics"]["sft"]["target_words"] == 2
    assert report["metrics"]["other"]["words"] > 0
    assert "words" in (folder / "report" / "report.html").read_text()
    # The KL is the policy's own, though its answers were drawn by another strategy.
    assert report["kl"]["other"]["mean"] > 1.0
