"""Numbers that a variant brings along, given or worked out in the worker."""

import os
import re
from fractions import Fraction

import pytest

import labkit as lab

QUICK = {"budget_s": 0.3, "trace": False}


def busy(steps):
    def call(_=None):
        for _ in range(steps):
            pass

    return call


def variants(**metrics):
    """A baseline and one variant for each function, all fast."""
    return {
        "base": busy(1000),
        **{
            name: lab.Variant(busy(2000), setup=lambda: [1, 2, 3], metrics=given)
            for name, given in metrics.items()
        },
    }


def counts(path):
    """A function of metrics that leaves a byte in a file at every call, whoever calls it."""

    def metrics(*_):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, b"x")
        os.close(file)
        return {"accuracy": 0.5}

    return metrics


@pytest.mark.parametrize("isolate", [True, False])
def test_a_function_of_metrics_gets_what_the_set_up_made(isolate):
    found = lab.compare(
        variants(one=lambda made: {"length": len(made), "last": made[-1]}),
        isolate=isolate,
        **QUICK,
    )
    assert found.trials["one"].metrics == {"length": 3.0, "last": 3.0}
    assert found.trials["base"].metrics == {}
    assert found.rounds > 0


@pytest.mark.parametrize("isolate", [True, False])
def test_without_a_set_up_a_function_of_metrics_gets_nothing(isolate):
    one = lab.Variant(busy(1000), metrics=lambda: {"accuracy": 0.5})
    found = lab.compare({"one": one, "two": busy(2000)}, isolate=isolate, **QUICK)
    assert found.trials["one"].metrics == {"accuracy": 0.5}
    assert found.rounds > 0


@pytest.mark.parametrize("isolate", [True, False])
def test_measure_gives_the_metrics_too(isolate):
    one = lab.Variant(busy(1000), setup=lambda: 7, metrics=lambda made: {"seven": made})
    assert lab.measure(one, budget_s=0.1, isolate=isolate).metrics == {"seven": 7.0}


def test_metrics_of_a_function_are_shown_and_kept_like_those_that_were_given():
    found = lab.compare(
        variants(given={"accuracy": 0.97}, made=lambda made: {"size_bytes": 2048 * len(made)}),
        **QUICK,
    )
    assert found.trials["given"].metrics == {"accuracy": 0.97}
    assert found.trials["made"].metrics == {"size_bytes": 6144.0}
    assert "6 KiB" in str(found)
    assert "0.97" in str(found)
    assert lab.Comparison.from_json(found.to_json()).trials == found.trials


def test_numbers_of_other_kinds_become_floats():
    import numpy as np

    found = lab.compare(
        variants(one=lambda _: {"share": np.float32(0.5), "exact": Fraction(1, 4)}), **QUICK
    )
    assert found.trials["one"].metrics == {"share": 0.5, "exact": 0.25}
    assert {type(v) for v in found.trials["one"].metrics.values()} == {float}


def breaks(_):
    raise KeyError("no test set")


BAD = {
    "raises": (breaks, "KeyError: 'no test set'"),
    "nothing": (lambda _: None, "TypeError: metrics=None: give numbers by name"),
    "a number": (lambda _: 0.97, r"TypeError: metrics=0\.97: give numbers by name"),
    "a text": (
        lambda _: {"accuracy": "97 %"},
        r"TypeError: metrics\['accuracy'\]='97 %' is no number",
    ),
    "a switch": (
        lambda _: {"exact": True},
        r"TypeError: metrics\['exact'\]=True is no number",
    ),
    "no argument": (lambda: {"accuracy": 0.97}, r"TypeError: .* takes 0 positional arguments"),
}


def test_an_error_in_metrics_is_a_row_of_its_own_and_the_others_are_measured():
    bad = {name: metrics for name, (metrics, _) in BAD.items()}
    found = lab.compare(variants(**bad, good=lambda _: {"accuracy": 0.5}), **QUICK)
    assert list(found.failures) == list(BAD)
    for name, (_, message) in BAD.items():
        failure = found.failures[name]
        assert (failure.stage, failure.kind) == ("setup", "raised")
        assert re.search(message, failure.message)
        assert found.trials[name].times_s == ()
        assert found.trials[name].metrics == {}
    assert found.trials["good"].metrics == {"accuracy": 0.5}
    assert found["good"].rounds > 0


def test_an_error_in_the_metrics_of_the_baseline_leaves_nothing_to_compare():
    bad = lab.Variant(busy(1000), setup=list, metrics=breaks)
    found = lab.compare({"bad": bad, "good": busy(1000)}, **QUICK)
    assert found.ended == "failed"
    assert "no test set" in found.failures["bad"].message
    assert found.rounds == 0


def test_an_error_in_metrics_is_the_callers_own_in_this_process():
    with pytest.raises(KeyError, match="no test set"):
        lab.compare(variants(bad=breaks), isolate=False, **QUICK)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"accuracy": "97 %"}, r"metrics\['accuracy'\]='97 %' is no number"),
        ([0.97], r"metrics=\[0\.97\]: give numbers by name"),
    ],
)
def test_metrics_that_are_no_numbers_are_refused_at_once(metrics, message):
    with pytest.raises(TypeError, match=message):
        lab.Variant(busy(10), metrics=metrics)


def test_metrics_are_worked_out_once_and_not_again_for_the_peak_memory(tmp_path):
    seen = tmp_path / "calls"
    found = lab.compare(variants(one=counts(seen)), memory=True, **QUICK)
    assert set(found.memory) == {"base", "one"}
    assert found.trials["one"].metrics == {"accuracy": 0.5}
    assert seen.read_text() == "x"


def test_a_measurement_of_memory_alone_works_out_no_metrics(tmp_path):
    seen = tmp_path / "calls"
    one = lab.Variant(lambda: bytearray(2**24), metrics=counts(seen))
    assert lab.peak_memory(one).peak_bytes > 2**23
    assert not seen.exists()


def test_what_metrics_take_is_in_no_sample():
    def slow(_):
        import time

        time.sleep(0.5)
        return {"accuracy": 0.5}

    found = lab.compare(variants(one=slow), **QUICK)
    assert found.trials["one"].metrics == {"accuracy": 0.5}
    assert max(found.trials["one"].times_s) < 0.5
    assert found.duration_s > 0.5
