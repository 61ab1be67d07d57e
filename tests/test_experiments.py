"""Experiments: parameters in interact's abbreviations, runs, sweeps and claims."""

import math

import pytest

import labkit as lab
from labkit.parameters import parse
from labkit.sweeps import SweepPoint
from labkit.trials import Trial


@lab.experiment(steps=[1000, 2000], factor=(1, 5), reverse=False)
def loops(steps, factor, reverse):
    """Two loops; one is longer."""
    one, other = steps, steps * factor
    if reverse:
        one, other = other, one

    def short():
        for _ in range(one):
            pass

    def long():
        for _ in range(other):
            pass

    return {"short": short, "long": long}


def test_abbreviations_mean_what_interact_means():
    ipywidgets = pytest.importorskip("ipywidgets")
    for given in [(1, 4), (0.0, 1.0), (0, 10, 2), [64, 256], True, "text", 5]:
        widget = ipywidgets.interactive.widget_from_abbrev(given)
        assert parse("x", given).default == widget.value, given


def test_the_defaults_are_known_without_running_anything():
    assert loops.defaults == {"steps": 1000, "factor": 3, "reverse": False}


def test_run_measures_with_the_parameters_given():
    comparison = loops.run(factor=2, budget_s=2)
    assert comparison["long"].verdict == "slower"
    assert comparison.parameters == {"steps": 1000, "factor": 2, "reverse": False}
    assert comparison.title == "loops"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"stepz": 1}, TypeError, "no parameter 'stepz'"),
        ({"steps": math.nan}, ValueError, "steps=nan: give a finite number"),
        ({"steps": -5}, ValueError, "steps=-5: give a number above 0"),
        ({"steps": 2.5}, ValueError, r"steps=2\.5: give a whole number"),
        ({"factor": 9}, ValueError, "factor=9: give a number from 1 to 5"),
        ({"reverse": 1}, ValueError, "reverse=1: give True or False"),
        ({"prediction": -1}, ValueError, "prediction=-1"),
    ],
)
def test_bad_values_are_refused_by_name(given, error, message):
    with pytest.raises(error, match=message):
        loops.run(**given)


def test_parameters_must_fit_the_function():
    with pytest.raises(TypeError, match="needs 'b'"):
        lab.experiment(a=[1])(lambda a, b: {})
    with pytest.raises(TypeError, match="no parameter 'c'"):
        lab.experiment(a=[1], c=[1])(lambda a: {})
    with pytest.raises(ValueError, match="setting of run"):
        lab.experiment(budget_s=[1])(lambda budget_s: {})
    with pytest.raises(ValueError, match="no choices"):
        lab.experiment(a=[])(lambda a: {})


def test_a_sweep_names_its_crossover():
    @lab.experiment(work=[100, 400, 1600, 6400])
    def fixed_cost(work):
        def grows():
            for _ in range(work):
                pass

        def constant():
            for _ in range(1000):
                pass

        return {"grows": grows, "constant": constant}

    sweep = fixed_cost.sweep(work=[100, 400, 1600, 6400], budget_s=2)
    assert 400 < sweep.crossover("constant") < 1600
    assert "slower at first and faster above work" in sweep.sentences[0]
    frame = sweep.to_frame()
    assert list(frame.columns[:2]) == ["work", "variant"]
    assert len(frame) == 8
    again = lab.Sweep.from_json(sweep.to_json())
    assert again.crossover("constant") == sweep.crossover("constant")


def by_hand(*speedups):
    """A sweep over size = 1, 10, 100, ... in which the second variant has these speed-ups."""
    points = []
    for i, speedup in enumerate(speedups):
        trials = {
            name: Trial(name, (seconds,) * 60, tuple(range(60)))
            for name, seconds in (("a", speedup), ("b", 1.0))
        }
        points.append(SweepPoint({"size": 10**i}, lab.Comparison(trials)))
    return lab.Sweep(("size",), tuple(points))


def test_a_sweep_names_where_a_gain_begins_or_ends():
    (gain,) = by_hand(1.0, 1.0, 2.0, 3.0).sentences
    assert gain == "b is the same up to size = 10 and faster from size = 100 on"
    (loss,) = by_hand(3.0, 1.0, 1.0).sentences
    assert loss == "b is faster up to size = 1 and the same from size = 10 on"


def test_a_sweep_without_a_crossover_says_so():
    (always,) = by_hand(2.0, 3.0).sentences
    assert always == "b does not cross the baseline: 2.00x to 3.00x (2 faster)"
    (twice,) = by_hand(1.0, 2.0, 1.0).sentences
    assert twice.startswith("b does not cross the baseline")


def test_a_sweep_checks_the_whole_grid_before_it_measures():
    with pytest.raises(ValueError, match="factor=7"):
        loops.sweep(factor=[1, 7])
    with pytest.raises(ValueError, match="a list of values"):
        loops.sweep(factor=2)


def test_a_point_that_raises_is_kept_with_its_reason():
    @lab.experiment(size=[1, 2])
    def breaks_at_two(size):
        if size == 2:
            raise MemoryError("too large")
        return {"a": lambda: None, "b": lambda: None}

    sweep = breaks_at_two.sweep(size=[1, 2], budget_s=0.2)
    assert [p.error for p in sweep] == ["", "MemoryError: too large"]
    assert "size=2 was not measured" in sweep.sentences[-1]
