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
from tests.t5x import commands  # noqa: E402
from tests.t5x.harness import comparison_lengths, prompt_lengths  # noqa: E402

COUNT = itertools.count()
LENGTHS = {"inputs": 16, "targets": 8}
ROUGE = ("JUDGE = @judges.RougeJudge", "TEXTS = ('answers',)")
TRAINING = {
    "sft": (None, models.SupervisedModel, LENGTHS, "sft"),
    "preference_model": (
        None,
        judges.PreferenceModel,
        comparison_lengths(LENGTHS),
        "comparisons",
    ),
    "reward_model": (None, judges.RewardModel, comparison_lengths(LENGTHS), "comparisons"),
    "offline": ("dpo", models.PolicyModel, comparison_lengths(LENGTHS), "comparisons"),
    "online": ("nash_ema_pg", models.PolicyModel, prompt_lengths(LENGTHS), "prompts"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return commands.write_policy(tmp_path_factory.mktemp("checkpoint") / "start")


@pytest.fixture
def parse(monkeypatch, checkpoint):
    """Parses as T5X does, with its module for the command's, and makes what a binding asks for."""

    def parse(script, files, task, *bindings):
        monkeypatch.setitem(sys.modules, "__main__", script)
        given = [
            "MIXTURE_OR_TASK_MODULE = 'tasks.jsonl'",
            f"MIXTURE_OR_TASK_NAME = 'jsonl_{task}'",
            f"TASK_FEATURE_LENGTHS = {LENGTHS}",
            f"CHECKPOINT_PATH = '{checkpoint}'",
            f"INITIAL_CHECKPOINT_PATH = '{checkpoint}'",
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
    algorithm, kind, lengths, task = TRAINING[run]
    files = [f"gin/t5x/{run}.gin"]
    files += [f"gin/algorithms/{algorithm}.gin"] if algorithm else []
    parse(t5x.train, files, task, *(ROUGE if run == "online" else ()))
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
    parse(t5x.eval, ["gin/t5x/eval.gin"], "comparisons", "EVAL_OUTPUT_DIR = 'runs/z'")
    assert type(made("%MODEL")) is judges.PreferenceModel
    parse(t5x.infer, ["gin/t5x/infer.gin"], "prompts", "INFER_OUTPUT_DIR = 'runs/z'")
    model = made("%MODEL")
    assert type(model) is models.PolicyModel and model.strategy.temperature == 0.0
    assert model.strategy.max_length == LENGTHS["targets"]


MISTAKES = {
    "an online algorithm offline": (
        ("offline", "ipo_md", "comparisons"),
        r"offline\.gin takes the data set's completions, but .* BETAS \(0\.125, 0\.125\)",
    ),
    "an offline algorithm online": (
        ("online", "ipo", "prompts", *ROUGE),
        r"online\.gin draws completions, but .* BETAS are None",
    ),
    "prompts in place of comparisons": (
        ("offline", "ipo", "prompts"),
        r"MIXTURE_OR_TASK_NAME: expected a task with \['completion_1', .*, got 'jsonl_prompts'",
    ),
    "comparisons in place of demonstrations": (
        ("sft", None, "comparisons"),
        r"expected a task with \['inputs', 'targets'\], .* got 'jsonl_comparisons'",
    ),
    "no checkpoint of the judge": (
        ("online", "ipo_md", "prompts"),
        r"expected JUDGE_CHECKPOINT_PATH to name the checkpoint of .*, got None",
    ),
    "a judge that is not there": (
        ("online", "ipo_md", "prompts", "JUDGE_CHECKPOINT_PATH = 'nowhere'"),
        r"JUDGE_CHECKPOINT_PATH: .*nowhere: expected .* got no such path",
    ),
    "a start that is not there": (
        ("offline", "ipo", "comparisons", "INITIAL_CHECKPOINT_PATH = 'nowhere'"),
        r"INITIAL_CHECKPOINT_PATH: .*nowhere: expected .* got no such path",
    ),
    "a larger vocabulary": (
        ("offline", "ipo", "comparisons", "config.T5Config.vocab_size = 100"),
        r"'jsonl_comparisons': expected a vocabulary of at most 100 ids, .* got 8192",
    ),
    "no texts for ROUGE": (
        ("online", "ipo_md", "prompts", ROUGE[0]),
        r"TEXTS: expected \('answers',\) for a RougeJudge, got \(\)",
    ),
    "dropout, as in T5X's finetune.gin": (
        ("offline", "ipo", "comparisons", "DROPOUT_RATE = 0.1"),
        r"DROPOUT_RATE: expected 0 for a policy, .* got 0\.1 \(T5X's finetune\.gin",
    ),
    "no length of completions": (
        ("offline", "ipo", "comparisons", "TASK_FEATURE_LENGTHS = {'inputs': 16}"),
        r"expected a length of 'targets', 1 or more, got {'inputs': 16}",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_before_data_are_read(parse, mistake):
    (run, algorithm, task, *bindings), message = MISTAKES[mistake]
    files = [f"gin/t5x/{run}.gin"]
    files += [f"gin/algorithms/{algorithm}.gin"] if algorithm else []
    parse(t5x.train, files, task, *bindings)
    with pytest.raises(ValueError, match=message):
        made("%MODEL")
        made("@train/utils.DatasetConfig()")
