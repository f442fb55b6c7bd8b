"""T5X's unmodified loop against our own: metrics and parameters of ten steps."""

import dataclasses

import pytest

pytest.importorskip(
    "t5x.train", reason="needs T5X, which no package index holds", exc_type=ImportError
)

import jax  # noqa: E402

from po_jax.t5x.start import partitioner_of  # noqa: E402
from tests.t5x import harness  # noqa: E402
from tests.t5x.cases import JUDGES, OFFLINE, ONLINE, make_case  # noqa: E402


def compare(name, folder, mesh=(1, 1), tolerance=5e-6, **options):
    """Trains by both loops, and prints the largest differences of metrics and parameters."""
    t5x = harness.Mesh(*mesh)
    partitioner = partitioner_of(t5x)
    case = make_case(name, folder, partitioner, **options)
    theirs, state = case.by_t5x(folder / "t5x", t5x)
    ours, other = case.by_us(folder / "ours", partitioner)
    metrics = harness.assert_same_metrics(theirs, ours, tolerance)
    parameters = harness.difference(state.params, other.params)
    told = {key: getattr(value, "dtype", value) for key, value in options.items()}
    print(f"{name} {mesh} {told}: metrics {metrics:.1e}, parameters {parameters:.1e}")
    assert parameters <= tolerance
    start = case.model.language_model.init(jax.random.key(3))
    assert harness.difference(state.params, start) > 1e-3  # it has learned
    return state, other


NAMES = ["sft", *JUDGES, *OFFLINE, *ONLINE]


@pytest.mark.parametrize("name", NAMES)
def test_ten_steps_are_those_of_our_loop(name, tmp_path):
    state, other = compare(name, tmp_path)
    if name == "nash_ema_pg":
        average = state.flax_mutables["average"]
        assert harness.difference(average, other.average) < 5e-6


@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_are_averaged(name, tmp_path):
    compare(name, tmp_path, micro_batches=4)


@pytest.mark.parametrize("mesh", [(1, 2), (2, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_meshes(name, mesh, tmp_path):
    compare(name, tmp_path, mesh)


@pytest.mark.parametrize("name", NAMES)
def test_scanned_layers(name, tmp_path):
    compare(name, tmp_path, config=harness.SCANNED)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name, tmp_path):
    compare(name, tmp_path, tolerance=2e-2, config=harness.BFLOAT16)


def test_dropout_moves_the_policy_from_its_reference(tmp_path):
    config = dataclasses.replace(harness.CONFIG, dropout_rate=0.5)
    with pytest.raises(ValueError, match=r"DROPOUT_RATE must be 0"):
        mesh = harness.Mesh()
        case = make_case("ipo", tmp_path, partitioner_of(mesh), config=config)
        case.by_t5x(tmp_path / "t5x", mesh, steps=1)
