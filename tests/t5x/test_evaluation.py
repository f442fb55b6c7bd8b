"""T5X's `eval` and `infer` on the wrappers, beside our own evaluation and sampling."""

import functools
import json

import pytest

pytest.importorskip(
    "t5x.train", reason="needs T5X, which no package index holds", exc_type=ImportError
)

import jax  # noqa: E402
import numpy as np  # noqa: E402
import seqio  # noqa: E402
from t5x import eval as t5x_eval  # noqa: E402
from t5x import infer as t5x_infer  # noqa: E402
from t5x import utils  # noqa: E402

from po_jax import judges  # noqa: E402
from po_jax.checkpoints.load import load_parameters  # noqa: E402
from po_jax.data import layouts, seqio_source  # noqa: E402
from po_jax.models import PolicyModel, SupervisedModel  # noqa: E402
from po_jax.sampling import Sampler, Strategy  # noqa: E402
from po_jax.t5.language_model import T5LM  # noqa: E402
from po_jax.t5x import converters  # noqa: E402
from po_jax.t5x.start import AnyCheckpoint, partitioner_of  # noqa: E402
from po_jax.training.held_out import JudgeEvaluation  # noqa: E402
from po_jax.training.run import Run  # noqa: E402
from po_jax.training.state import TrainState  # noqa: E402
from tests.t5x import harness  # noqa: E402
from tests.t5x.cases import OFFLINE, judge_model  # noqa: E402


@pytest.fixture(scope="module")
def language_model():
    harness.register()
    return T5LM(harness.CONFIG)


@pytest.fixture(scope="module")
def checkpoint(language_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return harness.write_start(folder / "start", language_model, scale=2.0) + "/checkpoint_0"


def restore(checkpoint):
    return utils.RestoreCheckpointConfig(
        path=checkpoint, mode="specific", dtype="float32", checkpointer_cls=AnyCheckpoint
    )


def held_out(task):
    return utils.DatasetConfig(
        mixture_or_task_name=task,
        task_feature_lengths=harness.TASK_LENGTHS[task],
        split="test",
        batch_size=harness.BATCH_SIZE,
        shuffle=False,
        seed=0,
    )


@pytest.mark.parametrize("kind", [judges.PreferenceModel, judges.RewardModel])
def test_agreement_is_that_of_our_evaluation(kind, language_model, checkpoint, tmp_path):
    mesh = harness.Mesh()
    partitioner, model = partitioner_of(mesh), judge_model(kind, language_model)
    t5x_eval.evaluate(
        model=model,
        dataset_cfg=held_out("under_t5x_comparisons"),
        restore_checkpoint_cfg=restore(checkpoint),
        partitioner=mesh,
        output_dir=str(tmp_path),
        inference_evaluator_cls=functools.partial(
            seqio.Evaluator, logger_cls=[seqio.TensorBoardLogger, seqio.JSONLogger]
        ),
        use_orbax=False,
    )
    (file,) = (tmp_path / "inference_eval").glob("*-metrics.jsonl")
    theirs = json.loads(file.read_text())
    params = load_parameters(language_model, checkpoint, partitioner)
    run = Run(language_model, lambda: params, partitioner, jax.random.key(0), tmp_path)
    layout = layouts.Comparisons(harness.LENGTHS)
    stream = seqio_source.stream("under_t5x_comparisons", "test", layout, harness.BATCH_SIZE)
    ours, _ = JudgeEvaluation(run, model=model, comparisons=stream)(
        TrainState(np.int32(0), params, {})
    )
    assert theirs["preference_accuracy"] == pytest.approx(ours["accuracy"], abs=1e-6)
    assert theirs["comparisons"] == ours["comparisons"]
    assert 0.2 < ours["accuracy"] < 0.8


def infer(mode, model, task, checkpoint, folder, feature="inputs"):
    t5x_infer.infer(
        mode=mode,
        model=model,
        dataset_cfg=held_out(task),
        restore_checkpoint_cfg=restore(checkpoint),
        partitioner=harness.Mesh(),
        output_dir=str(folder),
        checkpoint_period=100,
        output_vocab_feature_name=feature,
        use_orbax=False,
    )
    (file,) = folder.glob(f"*-{mode}.jsonl-?????-of-?????")
    return [json.loads(line) for line in file.read_text().splitlines()]


def policy(language_model, converter):
    strategy = Strategy(max_length=harness.LENGTHS["targets"], temperature=0.0)
    return PolicyModel(
        language_model=language_model,
        objective=OFFLINE["ipo"],
        strategy=strategy,
        feature_converter_cls=converter,
        input_vocabulary=harness.VOCABULARY,
        output_vocabulary=harness.VOCABULARY,
    )


def test_completions_are_those_of_our_sampler(language_model, checkpoint, tmp_path):
    model = policy(language_model, converters.PromptConverter)
    rows = infer("predict_with_aux", model, "under_t5x_prompts", checkpoint, tmp_path)
    partitioner = partitioner_of(harness.Mesh())
    layout = layouts.Prompts(harness.LENGTHS)
    corpus = seqio_source.read("under_t5x_prompts", "test", layout)
    prompts = corpus.padded("inputs", np.arange(len(corpus)), harness.LENGTHS["inputs"])[0]
    params = load_parameters(language_model, checkpoint, partitioner)
    sampler = Sampler(language_model, model.strategy, partitioner, harness.BATCH_SIZE)
    drawn = sampler.draw_all(params, None, prompts, (0.0,), jax.random.key(1))
    texts = [harness.VOCABULARY.decode([int(i) for i in row[0]]) for row in drawn.completion]
    assert [row["prediction"] for row in rows] == texts and len(set(texts)) > 3
    scores = [row["aux"]["scores"] for row in rows]
    np.testing.assert_allclose(scores, drawn.policy_logprob.sum(axis=(1, 2)), rtol=2e-5)


def test_the_other_modes_and_wrappers(language_model, checkpoint, tmp_path):
    plain = infer(
        "predict",
        policy(language_model, converters.PromptConverter),
        "under_t5x_prompts",
        checkpoint,
        tmp_path / "policy",
    )
    assert len(plain) == 37 and all("prediction" in row for row in plain)
    margins = infer(
        "score",
        policy(language_model, converters.ComparisonConverter),
        "under_t5x_comparisons",
        checkpoint,
        tmp_path / "margins",
    )
    judge = judge_model(judges.RewardModel, language_model)
    judge.input_vocabulary = judge.output_vocabulary = harness.VOCABULARY
    odds = infer("score", judge, "under_t5x_comparisons", checkpoint, tmp_path / "judge")
    assert len({row["score"] for row in margins}) > 30 and len({row["score"] for row in odds}) > 30
    imitator = SupervisedModel(
        language_model=language_model,
        feature_converter_cls=functools.partial(seqio.EncDecFeatureConverter),
        input_vocabulary=harness.VOCABULARY,
        output_vocabulary=harness.VOCABULARY,
    )
    for mode in ("predict", "predict_with_aux", "score"):
        rows = infer(mode, imitator, "under_t5x_sft", checkpoint, tmp_path / mode, "targets")
        assert len(rows) == 37
