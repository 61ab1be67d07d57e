"""The bubble of a pipeline, from comparisons that are built by hand."""

import pytest

from labkit.bubbles import Bubble, measured_bubble
from labkit.results import Comparison
from labkit.trials import Failure, Trial

NAMES = {"1 micro-batch": 1, "16 micro-batches": 16}


def measured(*times_s, rounds=40, failures=()):
    trials = {
        name: Trial(name, times_s=(seconds,) * rounds, rounds=tuple(range(rounds)))
        for name, seconds in zip(("1 process", *NAMES), times_s, strict=False)
    }
    trials |= {name: Trial(name, (), ()) for name in failures}
    return Comparison(
        trials,
        failures={name: Failure(name, "setup", "killed", "killed") for name in failures},
    )


def test_twice_as_fast_means_that_nobody_waits_and_no_faster_that_half_of_the_time_is_lost():
    found = measured_bubble(measured(1.0, 1.0, 0.5), NAMES, stages=2)
    assert found.idle == {1: (0.5, 0.5, 0.5), 16: (0.0, 0.0, 0.0)}


def test_the_formula_is_that_of_gpipe():
    bubble = Bubble(4, {})
    assert [bubble.formula(m) for m in (1, 12)] == [0.75, 0.2]


def test_an_interval_that_is_not_known_yet_is_not_drawn_as_one():
    found = measured_bubble(measured(1.0, 0.7, 0.6, rounds=2), NAMES, stages=2)
    assert "[not yet known], the formula says 5.88 %" in str(found)
    low, high = found.plot().axes[0].get_ylim()
    assert -0.1 <= low < high == 1


def test_pipelines_without_a_result_are_left_out_and_none_at_all_is_refused():
    some = measured(1.0, 0.6, failures=["16 micro-batches"])
    assert list(measured_bubble(some, NAMES, stages=2).idle) == [1]
    with pytest.raises(ValueError, match=r"none of \['1 micro-batch', .* was measured"):
        measured_bubble(measured(1.0, failures=list(NAMES)), NAMES, stages=2)
    with pytest.raises(ValueError, match="stages=1: a pipeline has at least 2"):
        measured_bubble(some, NAMES, stages=1)
    with pytest.raises(KeyError, match="2 micro-batches"):
        measured_bubble(some, {"2 micro-batches": 2}, stages=2)
