"""Number and order of timed runs, and their memory."""

import gc

import pytest
import torch

from seqnets.benchmarking import timer
from seqnets.benchmarking.memory import peak_memory
from seqnets.benchmarking.timer import race

CPU = torch.device("cpu")


class Clock:
    """A clock that stands still but for what runs."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def runner(self, name, *milliseconds):
        """A contestant that takes so long, one duration after the other, and then the last."""
        durations = list(milliseconds)

        def run():
            self.log.append(name)
            self.now += (durations.pop(0) if durations[1:] else durations[0]) / 1e3

        return run


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timer, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(timer, "sleep", lambda seconds: None)
    return clock


def test_contestants_take_turns_so_drift_affects_all_alike(clock):
    times = race({name: clock.runner(name, 4.0) for name in "abc"}, 0.001, CPU)

    timed = clock.log[-30::2]  # each after a run that is not
    assert timed == clock.log[-29::2]
    rounds = [timed[place : place + 3] for place in range(0, 15, 3)]
    assert rounds == [list("abc"), list("bca"), list("cab"), list("abc"), list("bca")]
    assert {t.rounds for t in times.values()} == {5}


def test_times_are_median_and_interquartile_range(clock):
    warm, before = [4.0, 4.0], 100.0  # and before each that counts one that does not
    runs = [time for counted in (9.0, 5.0, 4.0, 7.0, 6.0) for time in (before, counted)]

    times = race({"a": clock.runner("a", *warm, *runs)}, 0.001, CPU)

    assert (times["a"].median, times["a"].iqr) == pytest.approx((6.0, 2.0))


def test_a_short_run_is_repeated_within_a_round_and_averaged(clock):
    times = race({"quick": clock.runner("quick", 0.25)}, 0.001, CPU)

    assert times["quick"].median == pytest.approx(0.25)
    assert len(clock.log) == 2 + 5 * (1 + 8)  # 8 make up 2 ms, after one that is not counted


def test_more_time_gives_more_rounds(clock):
    assert (
        race({"a": clock.runner("a", 7.0)}, 0.2, CPU)["a"].rounds == 11
    )  # two runs, and 3 ms of pause


def test_the_garbage_collector_is_enabled_again_after_an_error():
    def broken():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        race({"broken": broken}, 0.001, CPU)

    assert gc.isenabled()


def test_peak_memory_counts_tensors_alive_at_once():
    before = torch.empty(1 << 20)

    def run():
        first = torch.empty(1 << 20)  # 4 MiB in float32
        second = torch.empty(1 << 19)
        del first
        third = torch.empty(1 << 18)
        del second, third

    assert peak_memory(run, CPU) == pytest.approx(6.0, abs=0.01)
    assert before.numel() == 1 << 20


def test_the_profiler_writes_nothing_to_stderr(capfd):
    peak_memory(lambda: torch.empty(1), CPU)

    assert capfd.readouterr().err == ""


@pytest.fixture
def gpu(monkeypatch, clock):
    """A GPU whose clock is ours, and the order of what is asked of it."""

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock.now
            clock.log.append("event")

        def synchronize(self):
            clock.log.append("wait")

        def elapsed_time(self, end):
            return (end.at - self.at) * 1e3

    monkeypatch.setattr(torch.cuda, "Event", Event)
    return torch.device("cuda")


def test_on_a_gpu_runs_lie_between_two_events_and_only_the_last_is_synchronised(clock, gpu):
    times = race({"a": clock.runner("a", 4.0)}, 0.001, gpu)

    assert times["a"].median == pytest.approx(4.0)
    assert clock.log[-7:] == ["a", "event", "a", "a", "a", "event", "wait"]  # 3 make up 10 ms


def test_on_a_gpu_the_second_run_estimates_the_time(clock, gpu):
    times = race({"a": clock.runner("a", 5000.0, 2.0)}, 0.001, gpu)

    assert times["a"].median == pytest.approx(2.0)


def test_without_contestants_there_are_no_times():
    assert race({}, 0.001, CPU) == {}
