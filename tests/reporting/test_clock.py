"""The stage clock, against work whose duration is known."""

import time

from po_jax.reporting.clock import StageClock


class Work:
    """Looks like an array that is ready some time after it was queued."""

    def __init__(self, ready_at):
        self._ready_at = ready_at

    def block_until_ready(self):
        time.sleep(max(0.0, self._ready_at - time.monotonic()))
        return self


def test_stages_follow_each_other_and_idleness_is_what_lies_between():
    clock = StageClock()
    start = time.monotonic()
    clock.queued("sampling", start, Work(start + 0.3))
    clock.queued("updating", start, Work(start + 0.5))  # queued behind: lasts 0.2 s
    time.sleep(0.6)  # 0.1 s without work
    again = time.monotonic()
    clock.queued("sampling", again, Work(again + 0.1))
    clock.queued("annotating", again, Work(again + 0.2), on_host=True)
    clock.wait()
    taken = clock.take(per="updating")
    expected = {
        "seconds_sampling": 0.4,
        "seconds_updating": 0.2,
        "seconds_annotating": 0.1,
        "seconds_idle": again - start - 0.5 + 0.1,
    }
    assert taken.keys() == expected.keys()
    for name, seconds in expected.items():
        assert abs(taken[name] - seconds) < 0.06, (name, taken)
    assert clock.take(per="updating") == {}


def test_times_are_means_over_steps():
    clock = StageClock()
    for _ in range(4):
        start = time.monotonic()
        clock.queued("sampling", start, Work(start + 0.05))
        clock.queued("updating", start, Work(start + 0.07))
        clock.wait()
    taken = clock.take(per="updating")
    assert abs(taken["seconds_sampling"] - 0.05) < 0.02
    assert abs(taken["seconds_updating"] - 0.02) < 0.02


def test_failed_work_does_not_stop_the_clock():
    class Failed:
        def block_until_ready(self):
            raise RuntimeError("on the device")

    clock = StageClock()
    clock.queued("sampling", time.monotonic(), Failed())
    clock.wait()
    assert "seconds_sampling" in clock.take(per="sampling")
