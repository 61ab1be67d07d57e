"""The bubble of a pipeline, from sweeps that are built by hand."""

import pytest

from labkit.bubbles import Bubble, measured_bubble
from labkit.results import Comparison
from labkit.sweeps import Sweep, SweepPoint
from labkit.trials import Trial


def point(micro_batches, alone_s, staged_s, rounds=40):
    trials = {
        name: Trial(name, times_s=(seconds,) * rounds, rounds=tuple(range(rounds)))
        for name, seconds in {"1 process": alone_s, "2 stages": staged_s}.items()
    }
    return SweepPoint({"micro_batches": micro_batches}, Comparison(trials))


def test_twice_as_fast_means_that_nobody_waits_and_no_faster_that_half_of_the_time_is_lost():
    sweep = Sweep(("micro_batches",), (point(1, 1.0, 1.0), point(16, 1.0, 0.5)))
    found = measured_bubble(sweep, "2 stages", stages=2)
    assert found.idle == {1: (0.5, 0.5, 0.5), 16: (0.0, 0.0, 0.0)}


def test_the_formula_is_that_of_gpipe():
    bubble = Bubble(4, {})
    assert [bubble.formula(m) for m in (1, 12)] == [0.75, 0.2]


def test_an_interval_that_is_not_known_yet_is_not_drawn_as_one():
    sweep = Sweep(("micro_batches",), (point(2, 1.0, 0.7, rounds=2),))
    found = measured_bubble(sweep, "2 stages", stages=2)
    assert "[not yet known], the formula says 33.3 %" in str(found)
    low, high = found.plot().axes[0].get_ylim()
    assert -0.1 <= low < high == 1


def test_points_without_a_result_are_left_out_and_none_at_all_is_refused():
    failed = SweepPoint({"micro_batches": 1}, None, "killed")
    sweep = Sweep(("micro_batches",), (failed, point(4, 1.0, 0.6)))
    assert list(measured_bubble(sweep, "2 stages", stages=2).idle) == [4]
    with pytest.raises(ValueError, match="'2 stages' was not measured at any point"):
        measured_bubble(Sweep(("micro_batches",), (failed,)), "2 stages", stages=2)
    with pytest.raises(ValueError, match="stages=1: a pipeline has at least 2"):
        measured_bubble(sweep, "2 stages", stages=1)
