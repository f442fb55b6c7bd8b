"""The loop: it learns, reports, saves, stops when asked, and loses nothing when things fail."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from po_jax.checkpoints.manager import CheckpointManager
from po_jax.judges import JudgeError, Judgement, Pairs
from po_jax.models import PolicyModel
from po_jax.partitioning import make_partitioner
from po_jax.reporting.reporter import NonFiniteLoss
from po_jax.training.held_out import PolicyEvaluation
from po_jax.training.loop import Updates
from po_jax.training.offline_feed import OfflineFeed
from tests.training import small_run


def records(folder, split="train"):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if line["split"] == split}


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_offline_ipo_learns_the_labels(tmp_path, capsys):
    small_run.offline_ipo(tmp_path, 60, log_period=10)
    found = records(tmp_path)
    assert found[60]["accuracy"] > 0.9 > found[10]["accuracy"]
    assert found[60]["loss"] < found[10]["loss"]
    for name in ("margin", "gradient_norm", "length", "seconds_updating", "seconds_idle"):
        assert np.isfinite(found[60][name])
    assert found[10]["seconds_scoring"] > 0.0
    assert "seconds_scoring" not in found[60]  # after an epoch the reference rests
    assert "training 60/60" in capsys.readouterr().err


def test_online_metrics_and_evaluations_are_recorded(tmp_path):
    judge = small_run.judge()

    def held_out(run):
        return PolicyEvaluation(
            run,
            prompts=small_run.prompts(),
            strategy=small_run.STRATEGY,
            vocabulary=Letters(),
            judge=judge,
            shown=2,
        )

    small_run.ipo_md(
        tmp_path,
        4,
        judge,
        evaluations={"held_out": held_out},
        eval_period=2,
        save_period=2,
        checkpoints=lambda folder: CheckpointManager(folder, keep=1, best="held_out/kl"),
    )
    found = records(tmp_path)
    for name in ("sampling", "annotating", "scoring", "updating", "idle"):
        assert found[3][f"seconds_{name}"] >= 0.0
    assert {"entropy", "eos_rate", "preference"} <= found[4].keys()
    evaluated = records(tmp_path, "held_out")
    assert evaluated.keys() == {0, 2, 4}
    assert evaluated[0]["win_rate"] == 0.5 and evaluated[0]["kl"] == 0.0
    assert evaluated[4].keys() >= {"win_rate", "kl", "entropy", "length", "eos_rate"}
    best = max((2, 4), key=lambda step: evaluated[step]["kl"])
    assert CheckpointManager(tmp_path, best="held_out/kl").best_step == best


class Letters:
    pad_id, eos_id, vocab_size = 0, 1, 27

    def decode(self, ids):
        return "".join(chr(96 + token) for token in ids)

    def encode(self, text):
        return [ord(letter) - 96 for letter in text]


def test_an_evaluation_of_the_reference_itself_finds_no_difference(tmp_path):
    seen = {}

    class Check(PolicyEvaluation):
        def __call__(self, state):
            reference = state.replace(params=self._run.reference)
            seen["values"], seen["text"] = super().__call__(reference)
            return seen["values"], seen["text"]

    small_run.offline_ipo(
        tmp_path,
        1,
        evaluations={
            "held_out": lambda run: Check(
                run,
                prompts=small_run.prompts(),
                strategy=small_run.STRATEGY,
                vocabulary=Letters(),
                shown=2,
            )
        },
    )
    assert seen["values"]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert "win_rate" not in seen["values"]
    assert seen["text"].count("**policy**") == 2


def test_sigterm_saves_and_the_same_command_resumes(tmp_path, capsys):
    expected = small_run.ipo_md(tmp_path / "alone", 5)
    before = signal.getsignal(signal.SIGTERM)
    stopped = small_run.ipo_md(
        tmp_path / "run", 5, started=lambda: os.kill(os.getpid(), signal.SIGTERM)
    )
    assert int(stopped.step) == 1
    assert signal.getsignal(signal.SIGTERM) == before
    assert "SIGTERM: saved step 1; the same command resumes" in capsys.readouterr().err
    assert_equal(small_run.ipo_md(tmp_path / "run", 5), expected)
    assert "resuming from step 1" in capsys.readouterr().err


def test_a_nan_loss_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    class Poisoned(OfflineFeed):
        def batch(self, step, state, clock):
            batch, facts = super().batch(step, state, clock)
            if step == 4:
                batch = batch.replace(preference=batch.preference * jnp.nan)
            return batch, facts

    with pytest.raises(NonFiniteLoss, match="step 5: the loss is nan"):
        small_run.train(tmp_path, Poisoned, small_run.comparisons(), 9, save_period=3)
    manager = CheckpointManager(tmp_path)
    assert manager.steps == [3]


def test_a_failing_judge_loses_no_step(tmp_path):
    expected = small_run.ipo_md(tmp_path / "alone", 6)

    class Failing:
        name, antisymmetric, calls = small_run.judge().name, True, 0
        made_from = small_run.judge().made_from  # the same judge, on a bad day

        def begin(self, pairs):
            Failing.calls += 1
            if Failing.calls == 6:
                raise JudgeError("no answer")
            return small_run.judge().begin(pairs)

    with pytest.raises(JudgeError, match="no answer"):
        small_run.ipo_md(tmp_path / "run", 6, Failing())
    assert CheckpointManager(tmp_path / "run").steps == [5]
    assert_equal(small_run.ipo_md(tmp_path / "run", 6), expected)


def test_a_batch_that_the_mesh_cannot_divide_is_refused(tmp_path):
    with pytest.raises(ValueError, match="multiple of 8 .*, got 6"):
        small_run.train(
            tmp_path, OfflineFeed, small_run.comparisons(6), 2, partitioner=make_partitioner()
        )


def test_a_checkpoint_of_another_size_is_refused(tmp_path):
    small_run.offline_ipo(tmp_path, 1)
    larger = small_run.T5LM(small_run.T5Config(**{**vars(small_run.MODEL.config), "emb_dim": 10}))
    with pytest.raises(ValueError, match="config.emb_dim 8: expected the same to go on, got 10"):
        small_run.offline_ipo(
            tmp_path, 2, model=PolicyModel(language_model=larger, objective=small_run.IPO)
        )
    with pytest.raises(ValueError, match="checkpoint_1"):
        small_run.train(
            tmp_path / "new",
            OfflineFeed,
            small_run.comparisons(),
            1,
            model=PolicyModel(language_model=larger, objective=small_run.IPO),
            initial_checkpoint_path=str(tmp_path),
        )


def test_a_python_judge_on_two_devices_gives_what_a_device_judge_gives(tmp_path):
    class OnHost:
        name, antisymmetric = "on the host", True

        def begin(self, pairs):
            prompt, completion, mask = jax.device_get((pairs.prompt, pairs.completion, pairs.mask))
            answer = small_run.judge().begin(Pairs(prompt, completion, mask))
            return lambda: Judgement(np.asarray(answer().preference))

    two_devices = make_partitioner(devices=jax.devices()[:2])
    one = small_run.ipo_md(tmp_path / "device", 3)
    two = small_run.ipo_md(tmp_path / "host", 3, OnHost(), partitioner=two_devices)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one.params, two.params)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"micro_batches": 0}, "micro_batches: expected 1 or more, got 0"),
        ({"micro_batches": -2}, "micro_batches: expected 1 or more, got -2"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm: expected more than 0, got 0.0"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm: expected more than 0, got -1.0"),
        ({"max_gradient_norm": float("nan")}, "max_gradient_norm: expected more than 0, got nan"),
        ({"average_decay": 1.0}, r"average_decay: expected a share in \[0, 1\), got 1.0"),
        ({"average_decay": -0.5}, r"average_decay: expected a share in \[0, 1\), got -0.5"),
    ],
)
def test_updates_out_of_range(settings, message):
    with pytest.raises(ValueError, match=f"Updates.{message}"):
        Updates(**settings)


@pytest.mark.parametrize("name", ["total_steps", "log_period", "eval_period", "save_period"])
@pytest.mark.parametrize("value", [0, -5])
def test_steps_and_periods_are_at_least_one(tmp_path, name, value):
    settings = {"total_steps": 1, name: value}
    with pytest.raises(ValueError, match=f"Trainer.{name}: expected 1 or more, got {value}"):
        small_run.offline_ipo(tmp_path, settings.pop("total_steps"), **settings)
    assert not list(tmp_path.iterdir())
