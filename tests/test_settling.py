"""Samples that wait until the threads of another variant have stopped."""

import hashlib
import random
import threading
import time
from types import SimpleNamespace

import pytest

from labkit.timing import _SETTLE_S, Calibrated, Finished, Plan, Rounds, is_busy, measure_rounds

pytestmark = pytest.mark.alone

SHORT_S, LONG_S = 1e-4, 1e-2


class Evaluation:
    """Costs what it says; no function, so that it is never copied to another place."""

    def __init__(self, name, seconds):
        self.name, self.seconds = name, seconds

    def __call__(self):
        return self.seconds


class FakeMachine:
    """A clock that only evaluations move, and threads that spin on after some of them.

    Args:
        spinning: by name of a variant, how often somebody who looks sees its threads run before
            they end.
    """

    device = "cpu"
    clock = "fake"

    def __init__(self, **spinning):
        self.now = 0.0
        self.spinning = spinning
        self.left = 0
        self.log = []

    def block(self, call, evaluations):
        start = self.now
        for _ in range(evaluations):
            self.now += call()
        self.log.append((call.name, evaluations))
        self.left = self.spinning.get(call.name, 0)
        return self.now - start

    def busy(self):
        self.log.append("busy" if self.left else "calm")
        self.left = max(0, self.left - 1)
        return self.log[-1] == "busy"

    def run(self, calls, **plan):
        """The log of the rounds alone, without what came before the first of them."""
        events, began = [], 0
        for event in measure_rounds(
            calls,
            Plan(preflight=False, **{"budget_s": 1.0, "resolution": 0.001, **plan}),
            sampler=self,
            clock=lambda: self.now,
            random_source=random.Random(0),
            collect=lambda: 0,
            busy=self.busy,
        ):
            events.append(event)
            if isinstance(event, Calibrated):
                # The last warm-up has ended.
                began = len(self.log)
        assert isinstance(events[-1], Finished)
        self.rounds = [times for e in events if isinstance(e, Rounds) for _, times in e.rounds]
        assert self.rounds
        return self.log[began:]


def short(name):
    return Evaluation(name, SHORT_S)


def long(name):
    return Evaluation(name, LONG_S)


def sizes(log, name):
    return [entry[1] for entry in log if entry[0] == name]


def test_every_sample_waits_until_no_thread_runs_on():
    machine = FakeMachine(pool=7)
    log = machine.run({"pool": long("pool"), "plain": long("plain")})
    before = [log[i - 1] for i, entry in enumerate(log) if not isinstance(entry, str)]
    assert len(before) >= 18
    assert set(before) == {"calm"}
    assert log.count("busy") >= 7 * 8


def test_a_variant_that_leaves_threads_spinning_makes_those_before_it_wait_too():
    log = FakeMachine(pool=3).run({"plain": long("plain"), "pool": long("pool")})
    assert log.count("busy") >= 3 * 8
    assert log.count("calm") == len(sizes(log, "plain")) + len(sizes(log, "pool"))


def test_a_short_evaluation_is_run_once_before_its_sample_and_not_in_it():
    machine = FakeMachine(pool=2)
    log = machine.run({"pool": short("pool"), "plain": short("plain")})
    for name in ("pool", "plain"):
        taken = sizes(log, name)
        assert taken[::2] == [1] * len(machine.rounds)
        assert set(taken[1::2]) == {taken[1]}
        assert taken[1] > 1
    assert all(t == pytest.approx(SHORT_S) for times in machine.rounds for t in times.values())


def test_threads_are_waited_for_before_the_evaluation_that_wakes_and_not_after_it():
    log = FakeMachine(pool=2).run({"pool": short("pool"), "plain": short("plain")})
    for i, entry in enumerate(log):
        if not isinstance(entry, str):
            woken = entry[1] == 1
            assert (log[i - 1] == "calm") if woken else (log[i - 1] == (entry[0], 1))


def test_a_long_evaluation_is_never_run_without_being_timed():
    machine = FakeMachine(pool=2)
    log = machine.run({"pool": long("pool"), "plain": short("plain")})
    assert sizes(log, "pool") == [1] * len(machine.rounds)
    assert sizes(log, "plain")[::2] == [1] * len(machine.rounds)


def test_threads_that_never_end_are_waited_for_a_while_and_no_longer(monkeypatch):
    class Endless(FakeMachine):
        def busy(self):
            self.now += 1e-3
            self.log.append("busy")
            return True

    machine = Endless()
    monkeypatch.setattr("labkit.timing.time", SimpleNamespace(perf_counter=lambda: machine.now))
    log = machine.run({"a": long("a"), "b": long("b")}, budget_s=5.0)
    looks, seen = [], 0
    for entry in log:
        seen += 1
        if entry != "busy":
            looks.append(seen - 1)
            seen = 0
    assert len(looks) == 2 * len(machine.rounds) >= 18
    # Of a millisecond each, up to the limit.
    assert {round(1e-3 * n / _SETTLE_S, 1) for n in looks} == {1.0}
    assert all(t == pytest.approx(LONG_S) for times in machine.rounds for t in times.values())


@pytest.mark.parametrize("evaluation", [short, long])
def test_without_threads_that_spin_on_nobody_waits_and_nobody_is_woken(evaluation):
    machine = FakeMachine()
    log = machine.run({"a": evaluation("a"), "b": evaluation("b")})
    # Not even a look: it sleeps.
    assert not {"busy", "calm"} & set(log)
    for name in ("a", "b"):
        assert len(sizes(log, name)) == len(machine.rounds)


@pytest.mark.parametrize("evaluation", [short, long])
def test_a_single_variant_waits_for_nobody(evaluation):
    machine = FakeMachine(pool=5)
    log = machine.run({"pool": evaluation("pool")}, budget_s=0.2)
    assert not {"busy", "calm"} & set(log)
    assert len(sizes(log, "pool")) == len(machine.rounds)


def test_a_variant_that_raises_while_it_is_woken_fails_and_the_others_go_on():
    class Breaks(Evaluation):
        calls = 0

        def __call__(self):
            self.calls += 1
            if self.calls == 200:
                raise RuntimeError("out of paper")
            return self.seconds

    machine = FakeMachine(pool=1)
    variants = {"pool": short("pool"), "bad": Breaks("bad", SHORT_S), "plain": short("plain")}
    machine.run(variants)
    assert "bad" in machine.rounds[0]
    assert set(machine.rounds[-1]) == {"pool", "plain"}


def wait_until(condition, deadline_s=20.0):
    """Wait for something that must happen; the deadline only bounds a failure."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail("it did not happen before the deadline")


def test_a_thread_that_runs_on_is_seen_until_it_ends():
    ended = threading.Event()

    def spin():
        while not ended.is_set():
            # Outside Python's lock, as the threads of a numerical library are.
            hashlib.sha256(bytes(10**6))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        wait_until(lambda: is_busy(0.02))
    finally:
        ended.set()
        thread.join()
    wait_until(lambda: not is_busy(0.02))


def test_one_look_that_misses_the_threads_is_not_the_last():
    class Hides(FakeMachine):
        looks = 0

        def busy(self):
            self.looks += 1
            return super().busy() and self.looks > 2

    log = Hides(pool=3).run({"pool": short("pool"), "plain": short("plain")})
    assert "busy" in log
