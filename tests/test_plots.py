"""Figures: what they show, and that nothing on them hides something else."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from labkit import figures, plots, scales, sweep_plots
from labkit.results import Comparison
from labkit.sweeps import Sweep, SweepPoint
from labkit.trials import Failure, PeakMemory, Trial

NOISE = (1.0, 1.01, 0.99, 1.02, 0.98, 1.005, 0.995)


def trial(name, seconds, rounds=80):
    times = tuple(seconds * NOISE[(i * i) % len(NOISE)] for i in range(rounds))
    return Trial(name, times, tuple(range(rounds)))


def comparison(times_s, *, failures=(), memory=None, **about):
    trials = {name: trial(name, s, 0 if s is None else 80) for name, s in times_s.items()}
    return Comparison(
        trials,
        failures={name: Failure(name, "warm-up", "raised", "ValueError: no") for name in failures},
        memory={n: PeakMemory(b, 0, "cpu", "high-water mark") for n, b in (memory or {}).items()},
        **about,
    )


PLAIN = comparison({"loop": 1e-3, "vector": 1e-4, "same": 1.001e-3})
FULL = comparison(
    {"loop": 1e-3, "a variant with a very long name indeed": 2e-4, "breaks": None},
    failures=["breaks"],
    memory={"loop": 3 * 2**20, "a variant with a very long name indeed": 300 * 2**20},
    title="sums of squares",
    parameters={"size": 1000, "threads": 2},
)


def sweep(*, memory=False, error=False):
    points = []
    for size, threads in itertools.product([10, 100, 1000, 10000], [1, 2]):
        ratio = (size / 150) ** 0.5 * threads
        c = comparison(
            {"loop": 1e-6 * size, "vector": 1e-6 * size / ratio},
            memory={"loop": size * 1000, "vector": size * 900} if memory else None,
        )
        points.append(SweepPoint({"size": size, "threads": threads}, c))
    if error:
        points[3] = SweepPoint(points[3].parameters, None, "MemoryError: too large")
    return Sweep(("size", "threads"), tuple(points), "sums")


FIGURES = {
    "plain": lambda: plots.comparison_figure(PLAIN),
    "full": lambda: plots.comparison_figure(FULL),
    "live intervals": lambda: plots.live_figures(FULL)[0],
    "live times": lambda: plots.live_figures(FULL)[1],
    "live memory": lambda: plots.live_figures(FULL)[2],
    "no rounds yet": lambda: plots.live_figures(comparison({"a": None, "b": None}))[0],
    "no times yet": lambda: plots.live_figures(comparison({"a": None, "b": None}))[1],
    "sweep": lambda: sweep_plots.sweep_figure(sweep()),
    "sweep with all": lambda: sweep_plots.sweep_figure(sweep(memory=True, error=True)),
    "sweep without points": lambda: sweep_plots.sweep_figure(Sweep(("size",), ())),
    "empty sweep": lambda: sweep_plots.sweep_figure(
        Sweep(("size",), (SweepPoint({"size": 1}, None, "ValueError"),))
    ),
}


def visible_texts(figure):
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        shown = [
            tick.label1
            for axis in (axes.xaxis, axes.yaxis)
            for tick in axis.get_major_ticks()
            if tick.label1.get_visible()
            and min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        ]
        for text in [*shown, *axes.texts, axes.xaxis.label, axes.yaxis.label]:
            if text.get_visible() and text.get_text().strip():
                yield text.get_text(), text.get_window_extent(renderer)


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another_or_leaves_the_figure(name):
    figure = FIGURES[name]()
    texts = list(visible_texts(figure))
    for (one, box), (other, box2) in itertools.combinations(texts, 2):
        # Two pixels of touching are not a covered word.
        overlap = (
            min(box.x1, box2.x1) - max(box.x0, box2.x0),
            min(box.y1, box2.y1) - max(box.y0, box2.y0),
        )
        assert min(overlap) < 2, (one, other)
    for text, box in texts:
        assert box.x0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1, text


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_becomes_a_png_of_its_size(name):
    figure = FIGURES[name]()
    png = figures.to_png(figure)
    assert png.startswith(b"\x89PNG")
    width, height = (int.from_bytes(png[i : i + 4]) for i in (16, 20))
    assert (width, height) == tuple(int(v) for v in figure.bbox.size)


def test_figures_need_no_pyplot():
    code = (
        "import sys; import labkit as lab; from labkit import figures\n"
        "c = lab.Comparison({n: lab.Trial(n, (1.0,) * 20, tuple(range(20))) for n in 'ab'})\n"
        "figures.to_png(c.plot()); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_narrowing_ends_with_the_interval_of_the_result():
    ratio = PLAIN["vector"]
    path = plots.narrowing(ratio)
    rounds, low, _, high = path[-1]
    assert (rounds, low, high) == (ratio.rounds, ratio.low, ratio.high)
    assert len(path) <= 40
    assert [p[0] for p in path] == sorted({p[0] for p in path})


def test_narrowing_is_empty_while_there_are_too_few_rounds():
    few = Comparison({n: trial(n, 1.0, rounds=3) for n in "ab"})
    assert plots.narrowing(few["b"]) == []


def test_a_failed_variant_keeps_its_row_and_says_why():
    figure = plots.comparison_figure(FULL)
    times = figure.axes[0]
    assert [t.get_text().split("\n")[0] for t in times.get_yticklabels()][-1] == "breaks"
    assert "raised during warm-up" in " ".join(t.get_text() for t in times.texts).replace("\n", " ")


def test_memory_is_drawn_beside_time_only_where_it_was_measured():
    assert len(plots.comparison_figure(PLAIN).axes) == 2
    assert len(plots.comparison_figure(FULL).axes) == 3
    assert len(plots.live_figures(PLAIN)) == 2
    assert len(plots.live_figures(FULL)) == 3


def test_the_axis_of_a_sweep_is_logarithmic_where_that_fits():
    assert sweep_plots.sweep_figure(sweep()).axes[0].get_xscale() == "log"
    near = tuple(SweepPoint({"n": n}, PLAIN) for n in (1, 2, 3))
    assert sweep_plots.sweep_figure(Sweep(("n",), near)).axes[0].get_xscale() == "linear"
    words = tuple(SweepPoint({"kind": k}, PLAIN) for k in ("relu", "tanh"))
    labels = sweep_plots.sweep_figure(Sweep(("kind",), words)).axes[-1].get_xticklabels()
    assert [t.get_text() for t in labels] == ["relu", "tanh"]


def test_a_sweep_names_its_crossover_for_each_slice():
    assert sweep().sentences == [
        "threads=1: vector is slower at first and faster above size = 150",
        "threads=2: vector is slower at first and faster above size = 37.5",
    ]
    texts = [t.get_text() for t in sweep_plots.sweep_figure(sweep()).axes[1].texts]
    assert texts == ["size = 150", "size = 37.5"]


def test_the_crossover_lies_on_the_line_also_where_a_point_is_on_no_side():
    # Twice as slow, then the same (a little slower), then four times as fast.
    times_s = {1: 2e-3, 8: 1.005e-3, 16: 2.5e-4}
    points = tuple(
        SweepPoint({"n": n}, comparison({"loop": 1e-3, "vector": s})) for n, s in times_s.items()
    )
    verdicts = [point.comparison["vector"].verdict for point in points]
    assert verdicts == ["slower", "same", "faster"]
    assert 8 <= Sweep(("n",), points).crossover("vector") < 8.1


@pytest.mark.parametrize("most", [3, 6])
@pytest.mark.parametrize("ratio", [8.1, 9, 12, 30, 99, 400, 5e3, 1e6])
@pytest.mark.parametrize("low_s", [1.1e-6, 2.7e-5, 4.9e-3])
def test_labels_of_times_stand_apart_on_a_narrow_axis(low_s, ratio, most):
    figure = figures.new_figure(0.75 * most, 1.6)
    axes = figure.add_subplot()
    scales.set_time_axis(axes, "x", [low_s, ratio * low_s], most=most)
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    boxes = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
    assert len(boxes) >= 2
    for left, right in itertools.pairwise(boxes):
        assert right.x0 - left.x1 > 3


def test_every_variant_differs_in_more_than_its_colour():
    looks = {figures.style(i) for i in range(7)}
    assert len({(marker, line) for _, marker, line in looks}) == 7
