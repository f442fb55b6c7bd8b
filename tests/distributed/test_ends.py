"""One process of several is asked to stop, fails, hangs, or dies: all end, and the run goes on."""

import json
import signal
import time

import numpy as np
import pytest

from po_jax.checkpoints.load import open_checkpoint
from tests.distributed import cluster, same

STEPS = 10
SHAPE = (2, 1, 1)


class Case:
    """One run on two processes, and where it is kept."""

    def __init__(self, folder, cache, name):
        self.folder, self.name = folder, name
        self._cache = str(cache)

    @property
    def logs(self):
        return self.folder / "logs"

    def start(self, **options):
        command = ["tests.distributed.disturbed", str(self.folder), str(STEPS), self.name]
        options = {"JAX_COMPILATION_CACHE_DIR": self._cache, **options}
        return cluster.start(command, SHAPE, self.logs, **options)

    def finish(self, **options):
        """Goes on to the end."""
        statuses = cluster.end(self.start(**options), 300.0)
        assert statuses == [0, 0], "\n".join(cluster.consoles(self.logs))

    def wait_for(self, step, within=200.0):
        """Returns when this step is recorded."""
        records = self.folder / self.name / "metrics.jsonl"
        until = time.monotonic() + within
        while time.monotonic() < until:
            lines = records.read_text().split("\n")[:-1] if records.exists() else []
            if lines and json.loads(lines[-1])["step"] >= step:
                return
            time.sleep(0.01)
        raise AssertionError("\n".join(cluster.consoles(self.logs)))

    def saved(self):
        paths = (self.folder / self.name).glob("checkpoint_*[0-9]")
        return sorted(int(path.name.split("_")[1]) for path in paths)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ends")
    return lambda name, where: Case(folder / where, folder / "jax", name)


@pytest.fixture(scope="module")
def undisturbed(case):
    whole = case("slow_judge", "undisturbed")
    whole.finish()
    return whole


def assert_bit_for_bit(found, expected):
    """Records and parameters are those of the undisturbed run."""
    one, other = (part.folder / part.name for part in (found, expected))
    assert same.metrics(one) == same.metrics(other)
    assert (one / "texts.jsonl").read_text() == (other / "texts.jsonl").read_text()
    one, other = (open_checkpoint(folder / f"checkpoint_{STEPS}") for folder in (one, other))
    for kind in ("parameters", "slots"):
        leaves, wanted = getattr(one, kind), getattr(other, kind)
        assert leaves.keys() == wanted.keys()
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(leaf.value(), wanted[name].value(), err_msg=name)


def assert_all_fail(run, step, within, what, **environment):
    """Begins a run that something ends after a step; all processes end with it, and in time."""
    started = run.start(**environment)
    run.wait_for(step)
    began = time.monotonic()
    statuses = cluster.end(started, within)
    print(f"{what}: all ended after {time.monotonic() - began:.1f} s")
    assert statuses == [1, 1]


@pytest.mark.parametrize("who", [(0,), (1,), (0, 1)])
def test_a_signal_to_any_is_heard_by_all_and_saved_at_one_step(case, undisturbed, who):
    run = case("slow_judge", f"signal_{'_'.join(map(str, who))}")
    started = run.start()
    run.wait_for(3)
    began = time.monotonic()
    for index in who:
        started[index].send_signal(signal.SIGTERM)
    assert cluster.end(started, 60.0) == [0, 0]
    print(f"SIGTERM to {who}: all ended after {time.monotonic() - began:.1f} s")
    assert "saved step" in (run.logs / "0.log").read_text()
    assert 3 <= max(run.saved()) < STEPS
    run.finish()
    assert_bit_for_bit(run, undisturbed)


@pytest.mark.parametrize("who", [0, 1])
def test_a_process_that_is_killed_ends_the_other(case, undisturbed, who):
    run = case("slow_judge", f"kill_{who}")
    started = run.start()
    run.wait_for(5)
    began = time.monotonic()
    started[who].kill()
    statuses = cluster.end(started, 120.0)
    print(f"SIGKILL of {who}: all ended after {time.monotonic() - began:.1f} s, {statuses}")
    assert statuses[who] == -signal.SIGKILL and statuses[1 - who] not in (0, None)
    run.finish()
    assert_bit_for_bit(run, undisturbed)


@pytest.mark.parametrize("who", [0, 1])
def test_a_judge_that_fails_on_one_process_ends_all_with_its_message(case, undisturbed, who):
    run = case("failing_judge", f"judge_{who}")
    assert_all_fail(run, 2, 60.0, f"judge failing on {who}", TROUBLE=str(who))
    for index in (0, 1):
        said = (run.logs / f"{index}.log").read_text()
        assert "the key has expired" in said
        assert index == who or f"process {who}: the judge failing" in said
    assert run.saved()[-1] == 3  # the step before the failure, saved by all
    run.finish()
    assert_bit_for_bit(run, undisturbed)


def test_a_full_disk_on_the_first_process_ends_all(case, undisturbed):
    run = case("full_disk", "disk")
    assert_all_fail(run, 2, 90.0, "full disk", TROUBLE="0")
    for index in (0, 1):
        assert "No space left on device" in (run.logs / f"{index}.log").read_text()
    run.finish()
    assert_bit_for_bit(run, undisturbed)


def test_a_loss_that_is_no_number_ends_all_and_the_last_good_step_stays(case):
    run = case("not_finite", "not_finite")
    assert_all_fail(run, 4, 90.0, "a loss that is not finite")
    for index in (0, 1):
        said = (run.logs / f"{index}.log").read_text()
        assert "error: step 6: the loss is nan and the gradient's norm nan" in said
    assert run.saved() == [2, 4]


@pytest.mark.parametrize("who", [0, 1])
def test_a_save_that_fails_on_one_process_ends_all_with_its_message(case, undisturbed, who):
    run = case("failing_save", f"save_{who}")
    assert_all_fail(run, 4, 90.0, f"a save failing on {who}", TROUBLE=str(who))
    for index in (0, 1):
        said = (run.logs / f"{index}.log").read_text()
        prefix = "error: " if index == who else f"error: process {who}: "
        (line,) = (line for line in said.splitlines() if line.startswith(prefix))
        assert "could not save to" in line and "File too large" in line
        assert line.endswith("the last whole checkpoint is step 2")
    assert run.saved() == [2]
    run.finish()
    assert_bit_for_bit(run, undisturbed)


def test_a_checkpoint_that_cannot_be_given_its_name_ends_all(case, undisturbed):
    run = case("failing_rename", "rename")
    assert_all_fail(run, 4, 90.0, "a rename failing on 0", TROUBLE="0")
    for index in (0, 1):
        said = (run.logs / f"{index}.log").read_text()
        assert "could not save to" in said and "Input/output error" in said
    assert run.saved() == [2]
    run.finish()
    assert_bit_for_bit(run, undisturbed)


def test_silence_ends_all_with_the_stacks_of_all(case):
    run = case("hanging", "hanging")
    started = run.start(TROUBLE="1", PO_JAX_WATCHDOG_MINUTES="1.5")  # compiling may be silent, too
    assert cluster.end(started, 240.0) == [1, 1]
    for index in (0, 1):
        said = (run.logs / f"{index}.log").read_text()
        assert "no step for 1.5 minutes" in said and "Current thread" in said
        if index == 1:
            assert "in ask_for_ever" in said  # where its main thread is
        else:  # It waits for the other, or has just heard that a collective waited long enough.
            assert "held_out.py" in said or "process 0 of 2, an error at step" in said, said


@pytest.mark.parametrize("who", [0, 1])
def test_a_process_alone_says_whom_it_waits_for_and_ends(case, who):
    run = case("slow_judge", f"alone_{who}")
    began = time.monotonic()
    started = run.start(alone=who, PO_JAX_WAIT_SECONDS="9")
    assert cluster.end(started, 60.0) == [1]
    assert time.monotonic() - began > 9.0
    said = (run.logs / f"{who}.log").read_text()
    assert f"process {who} of 2 needs the other 1: waiting, 9 s at most" in said
    assert "they did not come in 9 s" in said
