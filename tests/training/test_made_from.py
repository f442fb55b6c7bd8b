"""A run is what it was made from: recorded, compared when it is resumed, its start pinned."""

from functools import partial
import json

import jax
import numpy as np
import optax
import pytest

from po_jax.checkpoints.fingerprint import fingerprint
from po_jax.checkpoints.manager import CheckpointManager
from po_jax.data import layouts
from po_jax.data.corpus import BatchStream
from po_jax.judges import CallableJudge, Calls
from po_jax.losses import objectives, pairwise
from po_jax.models import PolicyModel
from po_jax.training.loop import Updates
from po_jax.training.made_from import FILE, Origin, describe
from po_jax.training.offline_feed import DataFeed, OfflineFeed
from po_jax.training.online_feed import OnlineFeed
from po_jax.training.optimizers import Adafactor
from tests.training import small_run
from tests.vocabularies import Numbers

INIT = jax.jit(small_run.MODEL.init)
DPO = partial(objectives.contrastive, loss=pairwise.dpo, tau=0.1)


def parameters(seed):
    return INIT(jax.random.key(seed))


def save(folder, step, params):
    manager = CheckpointManager(folder)
    manager.save(step, {"params": params})
    manager.close()


def origin(folder, start, facts=None, begun=True, loaded=0):
    """The origin of a run as the loop holds it; it begins with what `loaded` is the seed of."""
    made = Origin(folder, None if start is None else str(start), begun)
    made.hold(facts or {"data": {"batch_size": 8}}, lambda: parameters(loaded))
    if not begun:
        made.begin(parameters(loaded))
    return made


def test_a_run_goes_on_as_it_began_but_for_what_may_change(tmp_path, capsys):
    def run(steps, data=None, **options):
        small_run.train(tmp_path, OfflineFeed, data or small_run.comparisons(), steps, **options)

    run(1)
    model = PolicyModel(language_model=small_run.MODEL, objective=DPO)
    for name, before, now, start in (
        ("data.batch_size", "8", "16", partial(run, 2, data=small_run.comparisons(16))),
        ("model.objective.loss.is", "'ipo'", "'dpo'", partial(run, 1, model=model)),
        ("seed", "0", "3", partial(run, 2, random_seed=3)),
        ("optimizer.learning_rate", "0.05", "0.1", partial(run, 2, optimizer=Adafactor(0.1))),
        ("optimizer", "'Adafactor'", "None", partial(run, 2, optimizer=optax.sgd(0.1))),
        ("updates.average_decay", "None", "0.5", partial(run, 2, updates=Updates(1, None, 0.5))),
        ("data.fingerprint", "'.*'", "'.*'", partial(run, 2, data=other_data())),
        ("data.lengths.completion_1", "5", "4", partial(run, 2, data=other_data(targets=4))),
        ("the start", "None", "'.*x'", partial(run, 2, initial_checkpoint_path="x")),
    ):
        message = f"was made with {name}.* {before}: expected the same to go on, got {now}"
        with pytest.raises(ValueError, match=message):
            start()
    capsys.readouterr()
    run(1, log_period=2, eval_period=3, save_period=4, updates=Updates(2), writers=())
    assert "already at step 1 of 1" in capsys.readouterr().err


def other_data(targets=5):
    corpus = small_run.corpus(21)
    corpus.tokens["inputs"].values[0] += targets == 5
    return BatchStream(corpus, layouts.Comparisons({"inputs": 6, "targets": targets}), 8)


def test_a_run_that_saved_nothing_yet_may_begin_as_something_else(tmp_path):
    origin(tmp_path, None, begun=False)
    origin(tmp_path, None, {"data": {"batch_size": 4}}, begun=False)
    record = json.loads((tmp_path / FILE).read_text())
    assert record["data"]["batch_size"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE]  # nothing beside it


def test_the_start_is_pinned_whatever_its_folder_gains(tmp_path):
    save(tmp_path / "sft", 3, parameters(3))
    first = origin(tmp_path, tmp_path / "sft", begun=False, loaded=3)
    record = json.loads((tmp_path / FILE).read_text())["start"]
    assert record["step"] == 0 and record["path"] == str(tmp_path / "sft" / "checkpoint_3")
    save(tmp_path / "sft", 7, parameters(7))
    again = origin(tmp_path, tmp_path / "sft")
    assert again.checkpoint_path == first.checkpoint_path == record["path"]
    assert again.known(parameters(3)) is not None
    with pytest.raises(ValueError, match="expected the parameters that this run began with"):
        again.known(parameters(7))  # written over in its place


def test_a_resumed_run_has_the_reference_that_it_began_with(tmp_path):
    references = []

    class Watched(OfflineFeed):
        def __init__(self, run, data):
            super().__init__(run, data)
            references.append(lambda: fingerprint(run.reference))

    for seed in (3, 7):  # the second time there is a newer checkpoint
        save(tmp_path / "sft", seed, parameters(seed))
        start = str(tmp_path / "sft")
        small_run.train(
            tmp_path / "run", Watched, small_run.comparisons(), 1, initial_checkpoint_path=start
        )
    assert [found() for found in references] == 2 * [fingerprint(parameters(3))]


def test_another_path_will_do_if_it_leads_to_the_same_parameters(tmp_path):
    save(tmp_path / "sft", 3, parameters(3))
    origin(tmp_path, tmp_path / "sft", begun=False, loaded=3)
    (tmp_path / "sft").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="the checkpoint that this run began with, .* no such"):
        origin(tmp_path, tmp_path / "sft")
    moved = origin(tmp_path, tmp_path / "moved", loaded=3)
    assert moved.checkpoint_path == str(tmp_path / "moved" / "checkpoint_3")
    with pytest.raises(ValueError, match="they have changed since"):
        save(tmp_path / "moved", 4, parameters(4))
        origin(tmp_path, tmp_path / "moved" / "checkpoint_4", loaded=4)
    with pytest.raises(ValueError, match="made with the start '.*': .* got None"):
        origin(tmp_path, None)


def test_a_link_that_is_turned_elsewhere_turns_no_reference(tmp_path):
    for seed in (3, 4):
        save(tmp_path / f"sft_{seed}", seed, parameters(seed))
    (tmp_path / "latest").symlink_to(tmp_path / "sft_3")
    origin(tmp_path, tmp_path / "latest", begun=False, loaded=3)
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to(tmp_path / "sft_4")
    assert origin(tmp_path, tmp_path / "latest").checkpoint_path.endswith("sft_3/checkpoint_3")


def test_a_run_does_not_start_from_its_own_checkpoints(tmp_path):
    save(tmp_path, 3, parameters(3))
    for start in (tmp_path, tmp_path / "checkpoint_3"):
        with pytest.raises(ValueError, match="INITIAL_CHECKPOINT_PATH outside of MODEL_DIR"):
            origin(tmp_path, start, begun=True)


def test_a_run_of_an_earlier_version_says_so_once_and_goes_on(tmp_path, caplog):
    save(tmp_path / "sft", 3, parameters(3))
    made = origin(tmp_path, tmp_path / "sft")
    assert "no made_from.json says what it was made from" in caplog.text
    made.known(parameters(3))
    caplog.clear()
    again = origin(tmp_path, tmp_path / "sft")
    assert not caplog.text
    with pytest.raises(ValueError, match="they have changed since"):
        again.known(parameters(4))


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / FILE).write_text('{"start"')
    with pytest.raises(ValueError, match=f"{FILE}: expected JSON"):
        origin(tmp_path, None)


def test_what_is_described_tells_apart_what_learns_differently():
    def schedule(rate):
        return lambda step: rate / (step + 1)

    def feed(judge):
        made = partial(OnlineFeed, annotator=judge, strategy=small_run.STRATEGY)
        return made(small_run_run(), small_run.prompts(), betas=(0.0, schedule(0.5)))

    one, other = small_run.judge(), CallableJudge(max, Numbers(), calls=Calls(threads=3))
    different = [
        optax.adam(1e-3),
        optax.adam(1e-4),
        optax.adam(1e-3, b1=0.8),
        optax.adam(schedule(1e-3)),
        optax.adam(schedule(1e-4)),
        small_run.OPTIMIZER,
        partial(objectives.contrastive, loss=pairwise.ipo, tau=0.1),
        partial(objectives.contrastive, loss=pairwise.dpo, tau=0.1),
        partial(objectives.contrastive, loss=pairwise.dpo, tau=np.float32(0.1)),
        feed(one),
        feed(other),
        DataFeed(small_run_run(), small_run.prompts()),
    ]
    told = [json.dumps(describe(thing), sort_keys=True) for thing in different]
    assert len(set(told)) == len(told)
    assert "0x" not in "".join(told)  # no address, which another process would not have
    same = CallableJudge(max, Numbers(), calls=Calls(threads=1))
    assert describe(feed(same)) == describe(feed(other))


def small_run_run():
    from tests.training.test_held_out import RUN

    return RUN


def test_the_start_may_lie_in_a_persons_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    manager = CheckpointManager(tmp_path / "sft")
    manager.save(3, {"params": {"w": np.ones(2, np.float32)}})
    manager.close()
    origin = Origin(tmp_path / "run", "~/sft", begun=False)
    assert origin.checkpoint_path == str(tmp_path / "sft" / "checkpoint_3")
