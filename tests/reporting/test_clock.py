"""The stage clock, by a time that passes only while results are awaited."""

from threading import Event

import pytest

from po_jax.reporting.clock import StageClock


class Time:
    """What the clock reads; the watching thread alone moves it, by waiting for `Work`."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


class Work:
    """Looks like an array that is ready at some time."""

    def __init__(self, time, ready_at):
        self._time, self._ready_at = time, ready_at

    def block_until_ready(self):
        self._time.seconds = max(self._time.seconds, self._ready_at)
        return self


def test_stages_follow_each_other_and_idleness_is_what_lies_between():
    time = Time()
    clock = StageClock(now=time)
    clock.queued("sampling", 0.0, Work(time, 0.3))
    clock.queued("updating", 0.0, Work(time, 0.5))  # queued behind: lasts 0.2 s
    clock.queued("sampling", 0.6, Work(time, 0.7))  # after 0.1 s without work
    clock.queued("annotating", 0.6, Work(time, 0.8), on_host=True)  # the device waits from 0.7 on
    clock.wait()
    assert clock.take(per="updating") == pytest.approx(
        {
            "seconds_sampling": 0.4,
            "seconds_updating": 0.2,
            "seconds_annotating": 0.1,
            "seconds_idle": 0.2,
        }
    )
    assert clock.take(per="updating") == {}


def test_times_are_means_over_steps():
    time = Time()
    clock = StageClock(now=time)
    for start in (0.0, 1.0, 2.0, 3.0):
        clock.queued("sampling", start, Work(time, start + 0.25 + start / 10))
        clock.queued("updating", start, Work(time, start + 0.75 + start / 10))
    clock.wait()
    taken = clock.take(per="updating")
    assert taken["seconds_sampling"] == pytest.approx(0.25 + 0.15)  # (0 + 1 + 2 + 3) / 10 / 4
    assert taken["seconds_updating"] == pytest.approx(0.5)


def test_nobody_waits_for_work_but_the_clock():
    class Held:
        def __init__(self):
            self.over = Event()

        def block_until_ready(self):
            assert self.over.wait(timeout=60.0)
            return self

    clock, held = StageClock(now=Time()), Held()
    clock.queued("updating", 0.0, held)
    assert clock.take(per="updating") == {}  # we come here, and it is not over
    held.over.set()
    clock.wait()
    assert clock.take(per="updating").keys() == {"seconds_updating", "seconds_idle"}


def test_failed_work_does_not_stop_the_clock():
    class Failed:
        def block_until_ready(self):
            raise RuntimeError("on the device")

    clock = StageClock(now=Time())
    clock.queued("sampling", 0.0, Failed())
    clock.wait()
    assert "seconds_sampling" in clock.take(per="sampling")
