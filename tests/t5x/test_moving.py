"""A run that was stopped and resumed, and one that moves between T5X's loop and ours."""

import functools

import pytest

pytest.importorskip(
    "t5x.train", reason="needs T5X, which no package index holds", exc_type=ImportError
)

from t5x import utils  # noqa: E402

from po_jax.checkpoints import convert  # noqa: E402
from po_jax.t5x.start import partitioner_of  # noqa: E402
from tests.t5x import harness  # noqa: E402
from tests.t5x.cases import make_case  # noqa: E402


@pytest.mark.parametrize("name", ["ipo", "ipo_md", "nash_ema_pg"])
def test_stopped_after_step_six_and_resumed(name, tmp_path):
    mesh = harness.Mesh()
    case = make_case(name, tmp_path, partitioner_of(mesh))
    whole, state = case.by_t5x(tmp_path / "whole", mesh)
    case.by_t5x(tmp_path / "parts", mesh, steps=6)
    parts, resumed = case.by_t5x(tmp_path / "parts", mesh)
    assert harness.difference(resumed.params, state.params) <= 1e-6
    for step in range(1, 11):
        for metric in ("loss", "margin", "nll", "gradient_norm"):
            assert parts[step][metric] == pytest.approx(whole[step][metric], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ["ipo", "ipo_md", "nash_ema_pg"])
def test_from_t5x_to_our_loop_and_back_with_slots(name, tmp_path):
    mesh = harness.Mesh()
    partitioner = partitioner_of(mesh)
    case = make_case(name, tmp_path, partitioner)
    theirs = case.by_t5x(tmp_path / "t5x", mesh, steps=9, period=6)
    ours = case.by_us(tmp_path / "ours", partitioner, steps=9, save_period=6)

    target = convert.Target(format="po_jax", keep_slots=True)
    convert.plan(tmp_path / "t5x" / "checkpoint_6", target).write(tmp_path / "moved")
    moved = case.by_us(tmp_path / "moved", partitioner, steps=9)
    assert min(moved[0]) == 7
    assert_go_on_alike(moved, theirs)

    target = convert.Target(format="t5x", keep_slots=True)
    back = tmp_path / "back"
    back.mkdir()
    convert.plan(tmp_path / "ours" / "checkpoint_6", target).write(back / "checkpoint_6")
    # What the data's order was is T5X's to know: here it goes on where our loop was.
    returned = case.by_t5x(back, mesh, steps=9, get_dataset_fn=functools.partial(_after, 6))
    assert_go_on_alike(returned, ours)


def assert_go_on_alike(one, other):
    """The three steps after the move, and where they lead; the losses of Nash-MD-PG cancel out."""
    for step in (7, 8, 9):
        for metric in ("loss", "nll"):
            expected = other[0][step][metric]
            assert one[0][step][metric] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for part in (lambda state: state.params, average):
        if part(one[1]):
            assert harness.difference(part(one[1]), part(other[1])) <= 1e-5


def average(state):
    """The moving average that a state of either loop holds, or nothing."""
    return state.flax_mutables.get("average") if hasattr(state, "flax_mutables") else state.average


def _after(steps, *args):
    return utils.get_dataset(*args).skip(steps)
