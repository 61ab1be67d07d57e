"""The frontier of time and quality: who is on it, and how it is drawn."""

import math
import random

import pytest
from matplotlib.colors import to_rgba

from labkit import plots
from labkit.pareto import frontier, placed
from labkit.results import Comparison
from labkit.trials import Failure, Trial

NOISE = (1.0, 1.001, 0.999, 1.002, 0.998)
MS = 1e-3


def trial(name, seconds, quality=None, *, rounds=60, noise=NOISE, metric="accuracy", **metrics):
    # Each variant takes its noise in another order, or all would be noisy together.
    step = sum(name.encode()) % 4 + 1
    times = tuple(seconds * noise[(step * i) % len(noise)] for i in range(rounds))
    if quality is not None:
        metrics[metric] = quality
    return Trial(name, times, tuple(range(rounds)), metrics=metrics)


def wide(seed):
    draw = random.Random(seed)
    return [draw.lognormvariate(0, 0.5) for _ in range(61)]


def comparison(*trials, **about):
    return Comparison({t.name: t for t in trials}, **about)


def test_who_is_slower_and_worse_is_not_on_the_frontier():
    found = comparison(
        trial("accurate", 4 * MS, 0.98),
        trial("fast", 2 * MS, 0.97),
        trial("neither", 3 * MS, 0.96),
    )
    assert frontier(found) == ("fast", "accurate")


def test_the_fastest_come_first_whatever_the_order_of_the_variants():
    trials = [trial("a", 3 * MS, 0.99), trial("b", 1 * MS, 0.9), trial("c", 2 * MS, 0.95)]
    assert frontier(comparison(*trials)) == ("b", "c", "a")
    assert frontier(comparison(*reversed(trials))) == ("b", "c", "a")


def test_of_two_as_good_the_faster_one_stays():
    found = comparison(trial("slow", 2 * MS, 0.97), trial("fast", 1 * MS, 0.97))
    assert frontier(found) == ("fast",)


def test_of_two_as_fast_the_better_one_stays():
    found = comparison(trial("worse", 2 * MS, 0.96), trial("better", 2 * MS, 0.97))
    assert found["better"].verdict == "same"
    assert frontier(found) == ("better",)


def test_a_tie_in_both_keeps_both():
    found = comparison(trial("one", 2 * MS, 0.97), trial("other", 2 * MS, 0.97))
    assert set(frontier(found)) == {"one", "other"}


@pytest.mark.parametrize("times_ms", [(1.0, 1.15), (1.15, 1.0)])
def test_where_the_intervals_do_not_tell_both_stay(times_ms):
    worse, better = times_ms
    found = comparison(
        trial("worse", worse * MS, 0.90, noise=wide(1)),
        trial("better", better * MS, 0.99, noise=wide(2)),
    )
    medians = [found.trials[name].median_s for name in ("worse", "better")]
    assert (medians[0] < medians[1]) == (worse < better)
    assert found["better"].verdict == "inconclusive"
    assert set(frontier(found)) == {"worse", "better"}


def test_too_few_rounds_take_nobody_from_the_frontier():
    found = comparison(trial("slow", 9 * MS, 0.9, rounds=4), trial("fast", 1 * MS, 0.99, rounds=4))
    assert frontier(found) == ("fast", "slow")


def test_the_resolution_decides_what_is_as_fast():
    trials = [trial("worse", 1.00 * MS, 0.96), trial("better", 1.03 * MS, 0.97)]
    assert frontier(comparison(*trials, resolution=0.01)) == ("worse", "better")
    assert frontier(comparison(*trials, resolution=0.05)) == ("better",)


def test_the_baseline_may_be_beaten_and_a_variant_may_be_beaten_by_a_third():
    found = comparison(
        trial("base", 5 * MS, 0.97), trial("middle", 3 * MS, 0.97), trial("best", 1 * MS, 0.98)
    )
    assert frontier(found) == ("best",)


def test_what_has_no_time_or_no_quality_has_no_place():
    found = comparison(
        trial("base", 2 * MS, 0.9),
        trial("failed", 1 * MS, 0.99, rounds=0),
        trial("silent", 1 * MS),
        trial("undefined", 1 * MS, math.nan),
        failures={"failed": Failure("failed", "setup", "raised", "ValueError: no")},
    )
    assert placed(found) == {"base": (pytest.approx(2 * MS, rel=0.01), 0.9)}
    assert frontier(found) == ("base",)
    assert frontier(comparison(trial("a", MS), trial("b", MS))) == ()


def test_another_quality_may_be_asked_for():
    found = comparison(
        trial("a", 1 * MS, 0.9, recall=0.7),
        trial("b", 2 * MS, 0.8, recall=0.9),
    )
    assert found.frontier() == ("a",)
    assert found.frontier("recall") == ("a", "b")


DRAWN = comparison(
    trial("float32", 4 * MS, 0.98, size_bytes=4 * 2**20),
    trial("int8", 1 * MS, 0.97, size_bytes=2**20),
    trial("bfloat16", 3 * MS, 0.96, size_bytes=2 * 2**20),
)


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_figure_names_its_axes_the_variants_and_their_sizes():
    (axes,) = DRAWN.pareto().axes
    assert axes.get_xlabel() == "time per evaluation"
    assert axes.get_ylabel() == "accuracy (area: size)"
    assert legend(axes) == ["float32, 4 MiB", "int8, 1 MiB", "bfloat16, 2 MiB", "frontier"]


def test_the_frontier_is_marked_and_joined_in_the_figure():
    (axes,) = DRAWN.pareto().axes
    by_name = {line.get_label().split(",")[0]: line for line in axes.lines}
    marked = {
        name
        for name, line in by_name.items()
        if name in DRAWN.names and to_rgba(line.get_markeredgecolor()) == to_rgba("black")
    }
    assert marked == {"float32", "int8"}
    joined = by_name["frontier"]
    assert list(joined.get_ydata()) == [0.97, 0.98]
    assert list(joined.get_xdata()) == [DRAWN.trials[n].median_s for n in ("int8", "float32")]
    for name in DRAWN.names:
        (seconds,), (quality,) = by_name[name].get_data()
        assert (seconds, quality) == placed(DRAWN)[name]


def test_the_area_in_the_figure_is_the_size():
    (axes,) = DRAWN.pareto().axes
    large, small, middle = (float(dots.get_sizes()[0]) for dots in axes.collections)
    assert large == pytest.approx(4 * small) == pytest.approx(2 * middle)


def test_without_sizes_the_figure_says_nothing_of_them():
    found = comparison(
        trial("a", 1 * MS, 0.9, metric="recall"), trial("b", 2 * MS, 0.95, metric="recall")
    )
    (axes,) = found.pareto("recall").axes
    assert axes.get_ylabel() == "recall"
    assert legend(axes) == ["a", "b", "frontier"]


def test_a_size_may_go_by_another_name():
    found = comparison(trial("a", 1 * MS, 0.9, weights=2**10), trial("b", 2 * MS, 0.95))
    (axes,) = found.pareto(size="weights").axes
    assert legend(axes) == ["a, 1 KiB", "b", "frontier"]


def test_a_variant_without_a_place_is_not_drawn():
    found = comparison(trial("a", 1 * MS, 0.9), trial("silent", 1 * MS), trial("b", 2 * MS, 0.95))
    (axes,) = found.pareto().axes
    assert legend(axes) == ["a", "b", "frontier"]


def test_every_drawn_variant_is_inside_the_axes_of_the_figure():
    (axes,) = DRAWN.pareto().axes
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    for seconds, quality in placed(DRAWN).values():
        assert left < seconds < right
        assert low < quality < high


def test_a_figure_of_fewer_than_two_variants_says_which_metrics_there_are():
    found = comparison(trial("a", MS, 0.9, size_bytes=5), trial("b", MS, recall=0.5))
    with pytest.raises(ValueError, match=r"fewer than two .* 'accuracy'.*'size_bytes'.*'recall'"):
        found.pareto()
    with pytest.raises(ValueError, match=r"fewer than two .* 'f1'"):
        found.pareto("f1")


def test_where_variants_failed_the_figure_says_so():
    failure = Failure("b", "load", "killed", "the process ended: signal SIGKILL")
    found = comparison(trial("a", MS, 0.9), trial("b", MS), failures={"b": failure})
    figure = found.pareto()
    (text,) = figure.texts
    said = " ".join(text.get_text().split())
    assert said == figure.description
    assert said.startswith("Fewer than two variants have a time and accuracy: b killed during load")
    figure.draw_without_rendering()
    box = text.get_window_extent()
    assert figure.bbox.contains(box.x0, box.y0)
    assert figure.bbox.contains(box.x1, box.y1)


def test_the_panel_shows_the_frontier_only_where_there_is_a_quality():
    assert len(plots.live_figures(DRAWN)) == 3
    assert legend(plots.live_figures(DRAWN)[2].axes[0])[-1] == "frontier"
    assert len(plots.live_figures(comparison(trial("a", MS), trial("b", MS)))) == 2


def test_variants_that_beat_each_other_in_a_circle_do_not_all_disappear():
    # Each is faster than the next one in two rounds of three.
    turns = ((1, 2, 3), (2, 3, 1), (3, 1, 2))
    found = comparison(
        *(
            Trial(
                name,
                tuple(turns[i % 3][place] * MS for i in range(300)),
                tuple(range(300)),
                metrics={"accuracy": 0.9},
            )
            for place, name in enumerate("abc")
        )
    )
    assert [found.ratio(a, b).verdict for a, b in ("ab", "bc", "ca")] == ["faster"] * 3
    assert frontier(found)
    assert found.pareto().axes
