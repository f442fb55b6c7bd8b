"""Every file of gin/t5x, parsed by gin as T5X's commands do, and what it makes."""

import itertools
import sys

import pytest

pytest.importorskip(
    "t5x.train", reason="needs T5X, which no package index holds", exc_type=ImportError
)

import gin  # noqa: E402
import t5x  # noqa: E402
import t5x.eval  # noqa: E402
import t5x.infer  # noqa: E402
import t5x.train  # noqa: E402, F811

from po_jax import judges, models  # noqa: E402
from tests.t5x.harness import comparison_lengths, prompt_lengths  # noqa: E402

COUNT = itertools.count()
LENGTHS = {"inputs": 16, "targets": 8}
TRAINING = {
    "sft": (None, models.SupervisedModel, LENGTHS),
    "preference_model": (None, judges.PreferenceModel, comparison_lengths(LENGTHS)),
    "reward_model": (None, judges.RewardModel, comparison_lengths(LENGTHS)),
    "offline": ("dpo", models.PolicyModel, comparison_lengths(LENGTHS)),
    "online": ("nash_ema_pg", models.PolicyModel, prompt_lengths(LENGTHS)),
}


@pytest.fixture
def parse(monkeypatch):
    """Parses as T5X does, with its module for the command's, and makes what a binding asks for."""

    def parse(script, files, *bindings):
        monkeypatch.setitem(sys.modules, "__main__", script)
        given = [
            "MIXTURE_OR_TASK_MODULE = 'tasks.jsonl'",
            "MIXTURE_OR_TASK_NAME = 'jsonl_prompts'",
            f"TASK_FEATURE_LENGTHS = {LENGTHS}",
            "CHECKPOINT_PATH = 'runs/x'",
            "INITIAL_CHECKPOINT_PATH = 'runs/x'",
            "MODEL_DIR = 'runs/y'",
            "TRAIN_STEPS = 1",
        ]
        files = ["gin/models/t5_1_1/tiny.gin", *files]
        gin.clear_config()
        gin.parse_config_files_and_bindings(files, [*given, *bindings], finalize_config=False)

    gin.add_config_file_search_path(t5x.__path__[0].removesuffix("/t5x"))
    yield parse
    gin.clear_config()


def made(reference):
    """The value of a reference of gin."""
    taken = []

    def take(value):
        taken.append(value)

    name = f"take_{next(COUNT)}"
    configurable = gin.configurable(name, module="tests")(take)
    gin.parse_config(f"{name}.value = {reference}")
    configurable()
    return taken[0]


@pytest.mark.parametrize("run", TRAINING)
def test_training(parse, run):
    algorithm, kind, lengths = TRAINING[run]
    files = [f"gin/t5x/{run}.gin"]
    files += [f"gin/algorithms/{algorithm}.gin"] if algorithm else []
    parse(t5x.train, files)
    model = made("%MODEL")
    assert type(model) is kind and model.optimizer_def is not None
    assert model.FEATURE_CONVERTER_CLS(pack=False).pack is False
    data = made("@train/utils.DatasetConfig()")
    assert dict(data.task_feature_lengths) == dict(lengths)
    assert (data.pack, data.seed, data.batch_size) == (False, 0, 32)
    updates = made("@loop.Updates()")
    assert updates.average_decay == (0.99 if run == "online" else None)
    dropout = model.language_model.config.dropout_rate
    assert dropout == (0.0 if run in ("offline", "online") else 0.1)


def test_evaluation_and_inference(parse):
    parse(t5x.eval, ["gin/t5x/eval.gin"], "EVAL_OUTPUT_DIR = 'runs/z'")
    assert type(made("%MODEL")) is judges.PreferenceModel
    parse(t5x.infer, ["gin/t5x/infer.gin"], "INFER_OUTPUT_DIR = 'runs/z'")
    model = made("%MODEL")
    assert type(model) is models.PolicyModel and model.strategy.temperature == 0.0
    assert model.strategy.max_length == LENGTHS["targets"]
