"""The wrong timers: what they do is real, and nothing of theirs is left running."""

from __future__ import annotations

import gc
import time

import psutil
import pytest

from labkit import figures, traps
from labkit.results import Comparison
from labkit.trials import Trial


def work():
    return sum(range(1000))


def half():
    return sum(range(500))


def neighbours_alive():
    return [
        p
        for p in psutil.Process().children()
        if p.status() != psutil.STATUS_ZOMBIE and "random.uniform" in " ".join(p.cmdline())
    ]


@pytest.mark.parametrize("timer", [traps.one_run, traps.best_of_few, traps.mean_of_few])
def test_a_wrong_timer_sees_a_large_difference(timer, monkeypatch):
    # A clock made by hand: the first function takes 3 s, the second 1 s.
    now = [0.0]
    monkeypatch.setattr(traps.time, "perf_counter", lambda: now[0])

    def slow():
        now[0] += 3

    def fast():
        now[0] += 1

    assert timer(slow, fast) == 3


def test_neighbours_work_and_are_gone_afterwards():
    with traps.neighbours(2):
        found = neighbours_alive()
        assert len(found) == 2
        deadline = time.monotonic() + 20
        while not all(sum(p.cpu_times()[:2]) > 0.05 for p in found):
            assert time.monotonic() < deadline, "they do nothing"
            time.sleep(0.05)
    assert neighbours_alive() == []


def test_neighbours_are_gone_after_an_error():
    with pytest.raises(ZeroDivisionError), traps.neighbours(1):
        _ = 1 / 0
    assert neighbours_alive() == []


def test_a_change_of_the_machine_is_taken_for_a_difference(monkeypatch):
    # The change of the machine is one of the clock here: twice as slow while it lasts.
    class Slow:
        factor = 1.0

        def __enter__(self):
            self.factor = 2.0

        def __exit__(self, *_):
            self.factor = 1.0

    slow, now = Slow(), [0.0]
    monkeypatch.setattr(traps, "neighbours", lambda: slow)
    monkeypatch.setattr(traps.time, "perf_counter", lambda: now[0])

    def step():
        now[0] += 0.001 * slow.factor

    assert traps.one_after_the_other(step, step) == pytest.approx(0.5)


def test_claims_are_counted():
    claims = traps.NaiveClaims("one_run", (1.0, 1.01, 1.5, 0.5, 0.99))
    assert claims.off_by(0.02) == 2
    assert str(claims) == "one_run: 0.500x to 1.50x; more than 2 % apart in 2 of 5 tries"
    assert claims._repr_html_().startswith('<div class="labkit-result">')


def test_claims_and_comparison_stand_in_one_figure():
    comparison = Comparison({n: Trial(n, (1.0,) * 20, tuple(range(20))) for n in "ab"})
    claims = [traps.ask_again(traps.one_run, work, half), traps.NaiveClaims("wild", (0.02, 60.0))]
    figure = traps.naive_figure(claims, comparison)
    assert figures.to_png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    rows = [t.get_text() for t in axes.get_yticklabels()]
    assert rows == ["one run", "wild", "labkit.compare (interval)"]
    low, high = axes.get_xlim()
    assert low < 0.02
    assert high > 60


def test_the_collector_is_left_as_it_was():
    traps.ask_again(traps.best_of_few, work, work, tries=2)
    assert gc.isenabled()
