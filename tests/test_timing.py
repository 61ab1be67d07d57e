"""Rounds with a faked clock: exact numbers, no waiting."""

import random
import statistics

import pytest

from labkit.timing import (
    Calibrated,
    Finished,
    Garbage,
    Paged,
    Plan,
    Retaken,
    Rounds,
    calibrate,
    measure_rounds,
)
from labkit.trials import Failure, NoiseFloor
from labkit.usage import ProcessorUse


class FakeMachine:
    """A clock that only evaluations move; each costs what its function says."""

    device = "cpu"
    clock = "fake"

    def __init__(self):
        self.now = 0.0
        self.log = []

    def block(self, call, evaluations):
        start = self.now
        for _ in range(evaluations):
            self.now += call()
        self.log.append((call, evaluations))
        return self.now - start

    def run(self, calls, *, seed=0, **plan):
        events = measure_rounds(
            calls,
            Plan(**plan),
            sampler=self,
            clock=lambda: self.now,
            random_source=random.Random(seed),
            collect=lambda: 0,
        )
        return list(events)


def costs(seconds):
    return lambda: seconds


def samples(events, name):
    return [times[name] for e in events if isinstance(e, Rounds) for _, times in e.rounds]


def test_the_time_of_an_evaluation_is_the_block_divided_by_its_evaluations():
    events = FakeMachine().run({"a": costs(2e-5), "b": costs(1e-5)}, budget_s=1.0)
    assert samples(events, "a") == pytest.approx([2e-5] * len(samples(events, "a")))
    assert samples(events, "b") == pytest.approx([1e-5] * len(samples(events, "b")))


def test_a_block_is_long_enough_for_the_clock():
    sizes = {
        e.variant: e.evaluations_per_sample
        for e in FakeMachine().run({"a": costs(1e-6), "b": costs(0.5)}, budget_s=1.0)
        if isinstance(e, Calibrated)
    }
    assert 1000 <= sizes["a"] <= 1500
    assert sizes["b"] == 1


def test_a_run_goes_on_until_a_difference_is_roughly_known():
    """One variant is twice as fast in every other round, and six times in the rest."""
    turns = 0

    def unsteady():
        nonlocal turns
        turns += 1
        return 0.012 if turns % 2 else 0.004

    calls = {"a": costs(0.024), "b": unsteady}
    wide = FakeMachine().run(calls, budget_s=100.0)
    steady = FakeMachine().run({"a": costs(0.024), "b": costs(0.012)}, budget_s=100.0)
    assert isinstance(wide[-1], Finished)
    assert (steady[-1].reason, wide[-1].reason) == ("answered", "budget")
    assert len(samples(wide, "b")) > 50 * len(samples(steady, "b"))


class Quota(FakeMachine):
    """Whoever uses up a quota of 50 ms is stopped for as long, in the middle of a sample."""

    QUOTA_S = 0.05

    def __init__(self):
        super().__init__()
        self.used = 0.0
        self.stops = 0

    def block(self, call, evaluations):
        took = super().block(call, evaluations)
        self.used += took
        stopped = int(self.used / self.QUOTA_S)
        self.used -= stopped * self.QUOTA_S
        self.stops += stopped
        self.now += stopped * self.QUOTA_S
        return took + stopped * self.QUOTA_S

    def measure(self, calls, *, watched=True):
        settings = {"stops": lambda: self.stops} if watched else {}
        events = measure_rounds(
            calls,
            Plan(budget_s=20.0, resolution=1e-6),
            sampler=self,
            clock=lambda: self.now,
            random_source=random.Random(0),
            collect=lambda: 0,
            busy=lambda: False,
            **settings,
        )
        return list(events)


def test_a_sample_that_a_quota_stopped_is_taken_again():
    calls = {"a": costs(0.03), "b": costs(0.01)}
    events = Quota().measure(calls)
    assert samples(events, "a") == pytest.approx([0.03] * len(samples(events, "a")))
    assert samples(events, "b") == pytest.approx([0.01] * len(samples(events, "b")))
    (retaken,) = [e for e in events if isinstance(e, Retaken)]
    assert retaken.samples > 20
    # What it is good for: the long variant is stopped in most of its samples, the short one in few.
    stopped = Quota().measure(calls, watched=False)
    assert statistics.median(samples(stopped, "a")) == pytest.approx(0.08)
    assert statistics.median(samples(stopped, "b")) == pytest.approx(0.01)


def test_a_look_at_the_quota_collects_nobodys_garbage():
    def cycle():
        for _ in range(20):
            left = []
            left.append(left)

    events = measure_rounds(
        {"clean": lambda: None, "cycles": cycle},
        Plan(budget_s=0.2, resolution=1e-6),
        busy=lambda: False,
        stops=lambda: 0 * len([[] for _ in range(2000)]),
    )
    (found,) = [e for e in events if isinstance(e, Garbage)]
    assert found.variant == "cycles"


@pytest.mark.parametrize("long_s", [0.06, 0.12])
def test_what_no_quota_is_enough_for_is_timed_with_its_stops_and_so_are_the_others(long_s):
    events = Quota().measure({"a": costs(long_s), "b": costs(0.03)})
    assert min(samples(events, "a")) > 1.7 * long_s
    assert {round(x, 9) for x in samples(events, "b")} == {0.03, 0.08}
    assert not [e for e in events if isinstance(e, Retaken)]


@pytest.mark.parametrize(("found", "blamed"), [([5000], []), ([9] * 10_000, ["a", "b"])])
def test_what_the_collector_finds_once_is_nobodys_garbage(found, blamed):
    """A compilation in the warm-up leaves thousands of objects, and no evaluation does."""
    left = list(found)
    machine = FakeMachine()
    events = measure_rounds(
        {"a": costs(2e-3), "b": costs(1e-3)},
        Plan(budget_s=1.0),
        sampler=machine,
        clock=lambda: machine.now,
        collect=lambda: left.pop() if left else 0,
        warmed_up=lambda: 0,
        busy=lambda: False,
    )
    assert [e.variant for e in events if isinstance(e, Garbage)] == blamed


def test_what_the_system_did_is_counted_per_evaluation_and_only_in_samples():
    machine, looks = FakeMachine(), []

    def processor_use():
        """Between two looks: a thousand pages, 3 ms of its own and 1 ms of the system's."""
        looks.append(machine.now)
        seen = len(looks)
        return ProcessorUse(1000 * seen, 3e-3 * seen, 1e-3 * seen)

    events = list(
        measure_rounds(
            {"a": costs(2e-3), "b": costs(1e-5)},
            Plan(budget_s=0.5),
            sampler=machine,
            clock=lambda: machine.now,
            collect=lambda: 0,
            busy=lambda: False,
            processor_use=processor_use,
        )
    )
    block = {e.variant: e.evaluations_per_sample for e in events if isinstance(e, Calibrated)}
    paged = {e.variant: e for e in events if isinstance(e, Paged)}
    assert block["b"] > block["a"] == 1
    for name, evaluations in block.items():
        assert paged[name].page_faults == pytest.approx(1000 / evaluations)
        assert paged[name].system_share == pytest.approx(0.25)


def test_the_end_of_the_warm_up_is_told_before_the_first_sample():
    machine, at = FakeMachine(), []
    events = list(
        measure_rounds(
            {"a": costs(2e-3), "b": costs(1e-3)},
            Plan(budget_s=0.5),
            sampler=machine,
            clock=lambda: machine.now,
            collect=lambda: 0,
            warmed_up=lambda: at.append(len(machine.log)),
            busy=lambda: False,
        )
    )
    (warm_ups,) = at
    rounds = len(samples(events, "a"))
    assert len(machine.log) - warm_ups >= 2 * rounds > 0
    assert warm_ups < 40


def test_a_burst_during_calibration_does_not_shorten_the_block():
    machine, calls = FakeMachine(), 0

    def sometimes_slow():
        nonlocal calls
        calls += 1
        return 0.01 if calls in (1, 4, 40) else 1e-5

    evaluations, _ = calibrate(sometimes_slow, machine)
    assert evaluations >= 100


def test_a_difference_ends_the_run_as_soon_as_it_is_clear():
    events = FakeMachine().run({"a": costs(2e-3), "b": costs(1e-3)}, budget_s=60.0)
    assert events[-1].reason == "answered"
    assert events[-1].elapsed_s < 1.0


def test_noise_as_large_as_the_difference_spends_the_budget():
    draw = random.Random(5)
    machine = FakeMachine()
    noisy = {"a": lambda: draw.lognormvariate(-7, 1), "b": lambda: draw.lognormvariate(-7, 1)}
    events = machine.run(noisy, budget_s=2.0, resolution=0.02)
    assert events[-1].reason == "budget"
    assert events[-1].elapsed_s == pytest.approx(2.0, rel=0.2)


def jittery(seconds, draw):
    return lambda: seconds * draw.uniform(0.5, 1.5)


def test_the_order_within_a_round_is_drawn_afresh():
    machine, draw = FakeMachine(), random.Random(3)
    a, b = jittery(1e-5, draw), jittery(1e-5, draw)
    machine.run({"a": a, "b": b}, budget_s=1.0, resolution=0.0001)
    # Copies share the closure; blocks of a few evaluations only warm a new copy up.
    of_a = a.__closure__[1]
    taken = [call.__closure__[1] is of_a for call, n in machine.log if n > 16]
    first_of_pair = taken[200::2]
    assert len(first_of_pair) > 100
    assert 0.3 < sum(first_of_pair) / len(first_of_pair) < 0.7


def test_samples_are_taken_at_many_places_in_memory():
    machine, draw = FakeMachine(), random.Random(3)
    a, b = jittery(1e-5, draw), jittery(1e-5, draw)
    machine.run({"a": a, "b": b}, budget_s=1.0, resolution=0.0001)
    codes = {id(call.__code__) for call, n in machine.log if n > 16}
    assert len(codes) > 60


def test_moving_costs_a_small_share_of_the_time():
    for seconds in (1e-6, 1e-4, 5e-3):
        machine = FakeMachine()
        machine.run({"a": costs(seconds), "b": costs(seconds)}, budget_s=2.0, resolution=0.0001)
        sizes = [n for _, n in machine.log]
        warm = sum(n for _, n in machine.log[-200:] if n <= 16 < max(sizes))
        assert warm <= 0.15 * sum(sizes[-200:])


def test_drift_that_hits_both_cancels():
    machine = FakeMachine()

    def drifting(share):
        return lambda: share * 1e-3 * (1 + machine.now)

    events = machine.run({"a": drifting(1.1), "b": drifting(1.0)}, budget_s=3.0, resolution=0.01)
    ratios = [x / y for x, y in zip(samples(events, "a"), samples(events, "b"), strict=True)]
    assert events[-1].reason == "answered"
    assert sorted(ratios)[len(ratios) // 2] == pytest.approx(1.1, rel=0.01)


def test_the_preflight_runs_the_baseline_against_itself():
    floor = next(
        e
        for e in FakeMachine().run({"a": costs(1e-3), "b": costs(2e-3)}, budget_s=4.0)
        if isinstance(e, NoiseFloor)
    )
    assert floor.spread == pytest.approx(0, abs=1e-9)
    assert len(floor.log_ratios) >= 16


def test_a_resolution_far_out_of_reach_is_refused_after_the_preflight():
    draw = random.Random(6)
    noisy = {"a": lambda: draw.lognormvariate(-7, 0.5), "b": lambda: draw.lognormvariate(-7, 0.5)}
    events = FakeMachine().run(noisy, budget_s=4.0, resolution=1e-6)
    assert events[-1].reason == "refused"
    assert events[-1].elapsed_s < 1.0


def test_a_variant_that_raises_leaves_the_others_their_samples():
    calls = 0

    def breaks():
        nonlocal calls
        calls += 1
        if calls > 100:
            raise RuntimeError("out of paper")
        return 1e-3

    draw = random.Random(7)

    def noisy():
        return 1e-3 * (1 + 0.05 * draw.random())

    variants = {"a": noisy, "bad": breaks, "c": noisy}
    events = FakeMachine().run(variants, budget_s=2.0, resolution=1e-3)
    failure = next(e for e in events if isinstance(e, Failure))
    assert (failure.variant, failure.stage, failure.kind) == ("bad", "measuring", "raised")
    assert "out of paper" in failure.message
    after = [t for e in events if isinstance(e, Rounds) for _, t in e.rounds if "bad" not in t]
    assert len(after) > 10
    assert all(set(t) == {"a", "c"} for t in after)
    assert isinstance(events[-1], Finished)


def test_without_a_baseline_there_is_nothing_to_compare():
    def breaks():
        raise KeyError("no")

    events = FakeMachine().run({"a": breaks, "b": costs(1e-3)}, budget_s=1.0)
    assert events[-1].reason == "failed"
    assert samples(events, "b") == []


def test_every_step_is_announced_before_it_starts():
    machine, steps = FakeMachine(), []
    events = measure_rounds(
        {"a": costs(1e-3), "b": costs(1e-3)},
        Plan(budget_s=0.5),
        sampler=machine,
        clock=lambda: machine.now,
        on_step=lambda name, stage: steps.append((name, stage)),
        collect=lambda: 0,
    )
    for _ in events:
        pass
    assert ("a", "warm-up") in steps
    assert ("b", "measuring") in steps
    assert steps[-1] == (None, "")
