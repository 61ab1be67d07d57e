"""Amdahl's and Gustafson's laws, fitted to numbers that are known."""

import math
from dataclasses import replace

import pytest

from labkit import caveats, laws
from labkit.machines import machine
from labkit.results import Comparison
from labkit.trials import Trial


def around(ratio, share=0.03):
    """An interval of a ratio that is wrong by at most this share."""
    return ratio / (1 + share), ratio, ratio * (1 + share)


def measured(times_s, *, held_cores=None, cores=64):
    """A comparison whose variants took these times, with a noise of some tenths of a percent."""
    trials = {
        name: Trial(
            name, tuple(t * (1 + 0.002 * ((7 * i) % 5)) for i in range(60)), tuple(range(60))
        )
        for name, t in times_s.items()
    }
    here = machine().to_dict() | {"usable_cores": cores, "visible_cores": 64}
    here = {k: v for k, v in here.items() if k not in ("usable_threads", "fingerprint")}
    return Comparison(trials, machine=type(machine()).from_dict(here), held_cores=held_cores)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_the_share_that_made_the_points_is_found(share):
    strong = laws.strong({n: around(laws.amdahl(share, n)) for n in (2, 4, 16)})
    weak = laws.weak({n: around(laws.gustafson(share, n) / n) for n in (2, 4, 16)})
    for found in (strong, weak):
        assert found.describes
        assert found.low <= share + 1e-12
        assert share - 1e-12 <= found.high
        assert found.low <= found.share <= found.high
        assert found.share == pytest.approx(share, abs=0.02)


def test_the_interval_is_what_all_points_have_in_common():
    points = {2: around(1.8), 8: around(5.0)}
    both = laws.strong(points)
    alone = [laws.strong({n: points[n]}) for n in points]
    assert both.low == max(found.low for found in alone)
    assert both.high == min(found.high for found in alone)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_one_point_gives_its_own_share(share):
    assert laws.karp_flatt(laws.amdahl(share, 6), 6) == pytest.approx(share)
    assert laws.gustafson_share(laws.gustafson(share, 6), 6) == pytest.approx(share)


def test_a_share_that_grows_is_no_serial_share():
    found = laws.strong({2: around(1.95), 8: around(4.0), 16: around(4.2)}, unit="threads")
    assert found.describes is False
    assert math.isnan(found.share)
    assert found.below(0.5) is None
    said = " ".join(found.sentences)
    assert "does not describe these points" in said
    assert "it grows" in said
    assert "memory bandwidth" in said


def test_more_than_ideal_is_said_so():
    said = " ".join(laws.strong({2: around(2.4)}).sentences)
    assert "more than ideal" in said


def test_points_without_a_core_for_each_worker_are_not_fitted():
    found = laws.strong({2: around(1.9), 4: around(1.2)}, cores=2, unit="threads")
    assert [point.workers for point in found.fitted] == [2]
    assert found.describes
    assert "4 threads on 2 cores reach 1.20x" in found.sentences[-1]
    assert any("does not test the law" in line for line in found.sentences)


def test_with_one_core_there_is_nothing_to_fit(capsys):
    found = laws.strong({2: around(0.9)}, cores=1, unit="threads")
    assert found.describes is None
    assert found.sentences[0].startswith("no law is fitted")
    assert found.claim_share(at_most=0.5).state == "NOT HERE"
    assert "NOT HERE: from 0 % to 50 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("bounds", "state"),
    [
        ({"at_most": 0.3}, "CONFIRMED"),
        ({"at_least": 0.05, "at_most": 0.3}, "CONFIRMED"),
        ({"at_least": 0.5}, "REFUTED"),
        ({"at_most": 0.02}, "REFUTED"),
        ({"at_most": 0.1}, "INCONCLUSIVE"),
    ],
)
def test_a_claim_about_the_share(bounds, state):
    found = laws.strong({n: around(laws.amdahl(0.1, n)) for n in (2, 4)})
    assert found.claim_share(**bounds).state == state


def test_bounds_that_are_no_shares_are_refused():
    found = laws.strong({2: around(1.9)})
    with pytest.raises(ValueError, match=r"at_least=0\.5, at_most=0\.2"):
        found.claim_share(at_least=0.5, at_most=0.2)


def test_where_others_held_the_cores_nothing_is_claimed():
    times_s = {"1 thread": 1.0, "2 threads": 0.9}
    assert laws.strong(measured(times_s, held_cores=0.5)).missing == ""
    crowded = laws.strong(measured(times_s, held_cores=62.8))
    assert "Other programs used 62.80 of the 64 cores" in crowded.missing
    assert crowded.claim_share(at_most=0.5).state == "NOT HERE"
    assert crowded.missing in crowded.sentences


def test_where_the_threads_waited_for_a_core_each_nothing_is_claimed():
    waited = (caveats.waited(0.4),)
    times_s = {"1 thread": 1.0, "2 threads": 0.9}
    alone = laws.strong(replace(measured(times_s), caveats=waited))
    assert alone.claim_efficiency(2, at_least=0.8).state == "NOT HERE"
    assert "waited for a core" in alone.missing
    # More threads than cores wait for each other.
    assert laws.strong(replace(measured(times_s, cores=1.5), caveats=waited)).held == ""


@pytest.mark.parametrize(
    ("at_least", "state"), [(0.8, "CONFIRMED"), (0.99, "REFUTED"), (0.95, "INCONCLUSIVE")]
)
def test_a_claim_about_the_efficiency(at_least, state):
    found = laws.strong({2: around(1.9)})
    assert found.claim_efficiency(2, at_least=at_least).state == state
    with pytest.raises(ValueError, match="give one of 2"):
        found.claim_efficiency(3, at_least=0.5)


def test_a_comparison_says_how_many_workers_and_cores():
    comparison = measured({"1 thread": 1.0, "2 threads": 0.55, "4 threads": 0.5}, cores=2)
    found = laws.strong(comparison)
    assert (found.unit, found.cores) == ("threads", 2)
    assert [point.workers for point in found.points] == [2, 4]
    assert found.points[0].speedup == pytest.approx(1 / 0.55, rel=0.01)
    assert laws.weak(comparison).points[0].speedup == pytest.approx(2 / 0.55, rel=0.01)
    assert laws.strong(comparison, cores=4).fitted == laws.strong(comparison, cores=4).points


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["narrow", "2 threads"], "'narrow' does not say how many"),
        (["2 threads", "1 thread"], "the baseline is '2 threads'"),
    ],
)
def test_variants_without_a_number_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        laws.strong(measured(dict.fromkeys(names, 1.0)))


@pytest.mark.parametrize("interval", [(2.0, 1.0, 3.0), (-1.0, 1.0, 2.0), (0.0, math.inf, math.inf)])
def test_numbers_that_are_no_interval_are_refused(interval):
    with pytest.raises(ValueError, match="low <= middle"):
        laws.strong({2: interval})


def test_an_interval_that_is_not_known_yet_leaves_the_share_open():
    found = laws.strong({2: (0.0, 1.8, math.inf)})
    assert (found.low, found.high) == (0.0, 1.0)
    assert "leave every serial share open" in found.sentences[0]
    assert found.points[0].interval_text == "[not yet known]"


@pytest.mark.parametrize(
    "points",
    [
        {2: around(1.9)},
        {2: around(1.9), 4: around(1.5)},
        {2: around(1.9), 4: around(3.0), 64: around(9.0)},
        {2: (0.0, 1.8, math.inf)},
    ],
)
def test_the_figure_can_be_read(points):
    drawn = laws.figure(laws.strong(points, cores=2, unit="threads"), laws.weak(points))
    for axes in drawn.axes:
        labels = axes.get_legend_handles_labels()[1]
        assert len(labels) == len(set(labels))
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", *map(str, points)]
    assert "2 cores may be used" in drawn.axes[0].get_legend_handles_labels()[1]


def test_the_law_is_drawn_only_as_far_as_it_was_fitted():
    axes = laws.strong({2: around(1.9), 8: around(2.0)}, cores=2).plot().axes[0]
    law = next(line for line in axes.lines if str(line.get_label()).startswith("Amdahl"))
    assert max(law.get_xdata()) <= 2


def test_the_table_has_a_row_for_each_number_of_workers():
    found = laws.strong({2: around(1.9), 4: around(1.5)}, cores=2, unit="threads")
    text = str(found)
    assert text.splitlines()[0].split() == [
        *("threads", "speed-up", "interval", "efficiency"),
        *("serial", "share", "of", "this", "point", "alone"),
    ]
    assert "not fitted" in text
    assert list(found.to_frame()["fitted"]) == [True, False]
    assert 'class="labkit-result"' in found._repr_html_()
    assert repr(found) == "Scaling(Amdahl, threads)"
