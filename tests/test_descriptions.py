"""Every figure says in words what it shows, and everything on it stands out from its ground."""

from __future__ import annotations

import ast
import base64
import functools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.collections import PathCollection, PolyCollection
from test_pareto import DRAWN
from test_plots import FULL, PLAIN, comparison, sweep
from torch.profiler import profile, record_function

from labkit import bubbles, figures, laws, plots, profiles, scaling, sweep_plots, traps
from labkit.ledger import Ledger, MemoryLedger
from labkit.peaks import CopyRate, GemmRate, Peaks
from labkit.results import Comparison
from labkit.sensitivity import Sensitivity
from labkit.sweeps import Sweep, SweepPoint
from labkit.trials import Trial

LABKIT = Path(plots.__file__).parent
PEAKS = Peaks((CopyRate(2**20, 80e9), CopyRate(2**28, 20e9)), (GemmRate(1024, 100e9),), threads=1)
SUM = Comparison({"sum": Trial("sum", (1e-3,) * 20, tuple(range(20)), flops=1e6, bytes_moved=8e6)})
SEVEN = comparison({f"way {n}": n * 1e-3 for n in range(1, 8)}, memory={"way 7": 10 * 2**20})
SENSITIVE = Sensitivity(
    0.97,
    {"0": {"4 bits": 0.95, "8 bits": 0.97}, "2": {"4 bits": 0.61, "8 bits": 0.96}},
    {"0": 4096, "2": 1024},
    {"4 bits": 0.125, "8 bits": 0.25},
)


def ledger():
    def side(weights, most):
        return Ledger(
            weights, weights, 0, 3 * weights, most, (("weights", weights), ("forward", most))
        )

    return MemoryLedger(side(2**20, 4 * 2**20), side(2**20, 5 * 2**20), "cpu")


def flames():
    with profile() as profiler, record_function("step"):
        for _ in range(20):
            torch.ones(200, 200) @ torch.ones(200, 200)
    return profiles.flame_figure(profiler, "step")


# What each function that draws must say of these results: their main numbers.
DRAWN_BY = {
    "plots.comparison_figure": (
        lambda: plots.comparison_figure(FULL),
        ["sums of squares", "loop 990 µs", "5.00x [5.00x, 5.00x], faster", "raised", "300 MiB"],
    ),
    "plots.live_figures": (
        lambda: plots.live_figures(PLAIN)[0],
        ["80 rounds", "vector 10.0x [10.0x, 10.0x], faster", "same 0.999x"],
    ),
    "plots.live_figures, times": (
        lambda: plots.live_figures(FULL)[1],
        ["loop 990 µs, most from 980 µs to 1.01 ms", "breaks: raised"],
    ),
    "plots.live_figures, memory": (
        lambda: plots.live_figures(FULL)[2],
        ["loop 3 MiB", "300 MiB"],
    ),
    "plots.live_figures, frontier": (
        lambda: plots.live_figures(DRAWN)[-1],
        ["the fastest first: int8 1.00 ms, accuracy 0.97, 1 MiB", "Beaten", "bfloat16 3.00 ms"],
    ),
    "plots.pareto_figure": (
        lambda: plots.pareto_figure(DRAWN),
        ["of 3 variants", "float32 4.00 ms, accuracy 0.98, 4 MiB"],
    ),
    "sweep_plots.sweep_figure": (
        lambda: sweep_plots.sweep_figure(sweep(memory=True, error=True)),
        ["size = 10 to 10000, 8 points", "above size = 150", "37.5", "not measured", "memory"],
    ),
    "plots.curves_figure": (
        lambda: plots.curves_figure({"sgd": [2.3, 0.5, 0.7]}, x="step", y="loss"),
        ["Loss over step", "from 2.3 at step 1 to 0.7 at step 3", "lowest 0.5 at 2"],
    ),
    "plots.sensitivity_figure": (
        SENSITIVE.plot,
        ["unchanged it is 0.97", "4 bits leaves 0.61 to 0.95, least where 2 is changed"],
    ),
    "plots.ledger_figure": (
        lambda: ledger().plot(),
        ["weights 1 MiB and 1 MiB", "held after forward: 5 MiB"],
    ),
    "rooflines.roofline_figure": (
        lambda: PEAKS.plot(SUM),
        ["20 GB/s", "100 GFLOP/s", "5 FLOP/B", "sum: 1 GFLOP/s, 40 % of the limit", "0.125 FLOP/B"],
    ),
    "laws.figure": (
        lambda: laws.strong({2: (1.7, 1.82, 1.9), 4: (2.95, 3.08, 3.2)}, unit="threads").plot(),
        ["4 threads 3.08x [2.95x, 3.20x]", "serial share of 9.95 %"],
    ),
    "traps.naive_figure": (
        lambda: traps.naive_figure([traps.NaiveClaims("one_run", (0.9, 1.3))], PLAIN),
        ["one run: 0.900x to 1.30x", "2 of 2 tries", "vector is 10.0x faster"],
    ),
    "bubbles.Bubble.plot": (
        lambda: bubbles.Bubble(2, {1: (0.48, 0.5, 0.53), 8: (0.1, 0.15, 0.2)}).plot(),
        ["1 micro-batch: 50 % [48 %, 53 %]", "the formula says 11.1 %"],
    ),
    "profiles.flame_figure": (flames, ["Flame graph of step", "ones", "matmul", " %"]),
    "scaling_plots.link_figure": (
        lambda: scaling.Link.fit((n, 40e-6 + n / 2e9) for n in (1e3, 1e5, 1e7)).plot(),
        ["all-reduce of 2 ranks", "3 points from 1000 B to 9.54 MiB", "latency 20.0 µs, 2 GB/s"],
    ),
    "scaling_plots.weak_scaling_figure": (
        lambda: scaling.weak_scaling(0.1, 100e6, scaling.Link(0, 1e9)).plot(),
        ["Predicted", "342x with 1024 ranks, efficiency 33.4 %"],
    ),
    "scaling_plots.plan_figure": (
        lambda: scaling.plan(scaling.LLAMA2_70B, scaling.H100, 64, zero=(1,)).plot(most=2),
        ["Predicted", "Llama 2 70B on 64 x H100", "MFU", "does not fit"],
    ),
}


SEEN = {
    **{name: draw for name, (draw, _) in DRAWN_BY.items()},
    "all colours": lambda: plots.comparison_figure(SEVEN),
    "all colours, live": lambda: plots.live_figures(SEVEN)[0],
    "all colours, memory": lambda: plots.live_figures(SEVEN)[2],
}


@functools.cache
def drawn(name):
    """Once for all tests: they only look."""
    return SEEN[name]()


def drawing_functions():
    """Module and function of every call of new_figure, and how many arguments it has."""
    for path in sorted(LABKIT.glob("*.py")):
        code = path.read_text(encoding="utf-8")
        if "new_figure(" not in code:
            continue
        tree = ast.parse(code)
        stack = [(node, "") for node in tree.body]
        while stack:
            node, inside = stack.pop()
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                inside = f"{inside}.{node.name}".strip(".")
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", getattr(node.func, "attr", "")) == "new_figure"
            ):
                yield f"{path.stem}.{inside}", len(node.args) + len(node.keywords)
            stack += [(child, inside) for child in ast.iter_child_nodes(node)]


def test_no_function_draws_without_words():
    found = dict(drawing_functions())
    assert len(found) >= 12
    assert [name for name, arguments in found.items() if arguments < 3] == []


@pytest.mark.parametrize("name", DRAWN_BY)
def test_a_figure_says_what_it_shows_with_its_main_numbers(name):
    text = drawn(name).description
    for number in DRAWN_BY[name][1]:
        assert number in text
    assert text.endswith(".")
    assert "\n" not in text
    assert not re.search(r"\b(nan|inf|None)\b|\.\.|: \.", text), text
    # What is read aloud must have an end.
    assert len(text) < 700


def test_results_without_numbers_are_said_to_be_so():
    waiting = plots.live_figures(comparison({"a": None, "b": None}))
    assert "nothing is known yet" in waiting[0].description
    assert "none yet" in waiting[1].description
    failed = Sweep(("size",), (SweepPoint({"size": 1}, None, "ValueError: no"),))
    assert "size=1 was not measured: ValueError" in sweep_plots.sweep_figure(failed).description


def test_many_variants_are_counted_and_not_all_read():
    many = comparison({f"way {n}": 1e-3 for n in range(12)})
    assert plots.comparison_figure(many).description.endswith("and 4 more.")


class Tags(HTMLParser):
    """Tags with their attributes, and the text between."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = {}, ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = dict(attrs)

    def handle_data(self, data):
        self.text += data


def test_a_notebook_gets_the_picture_with_its_words():
    odd = comparison({'"><b>': 1e-3, "a\nb": 1e-4})
    figure = plots.comparison_figure(odd)
    data, metadata = figure._repr_mimebundle_()
    page = Tags(data["text/html"])
    assert page.tags["img"]["alt"] == figure.description
    assert page.tags["img"]["src"] == f"data:image/png;base64,{data['image/png']}"
    assert "b" not in page.tags
    assert page.text.endswith(figure.description)
    assert data["text/plain"] == f"Picture: {figure.description}"
    assert metadata["image/png"]["alt"] == figure.description
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_a_saved_picture_is_small_and_of_the_same_size():
    figure = plots.comparison_figure(FULL)
    small, large = figures.to_small_png(figure), figures.to_png(figure)
    assert small[16:24] == large[16:24]
    assert len(small) < 0.6 * len(large)


# Contrast: 4.5 for text, 3 for what carries meaning (WCAG 2.2, 1.4.3 and 1.4.11).


def test_the_formula_of_contrast_is_that_of_wcag():
    # https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio, and greys that are well known.
    for colour, expected in {"#767676": 4.54, "#949494": 3.03, "#0000ff": 8.59, "#fff": 1}.items():
        assert figures.contrast(colour, "white") == pytest.approx(expected, abs=0.005)
    assert figures.contrast(("black", 0.5), "white") == figures.contrast((0.5, 0.5, 0.5), "white")


def test_every_colour_of_a_variant_stands_out_from_white():
    for colour in figures.COLOURS:
        assert figures.contrast(colour, "white") >= 3
        assert figures.contrast(figures.ink(colour), colour) >= 4.5


def grounds(axes):
    """Boxes of bars, in pixels, with their colours."""
    for bar in axes.patches:
        yield bar.get_window_extent(), bar.get_facecolor()


@pytest.mark.parametrize("name", SEEN)
def test_text_on_a_figure_can_be_read(name):
    figure = drawn(name)
    figure.canvas.draw()
    for axes in figure.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        around = [*ticks, axes.title, axes.xaxis.label, axes.yaxis.label]
        for text in around:
            assert figures.contrast(text.get_color(), "white") >= 4.5, text
        for text in axes.texts:
            box = text.get_window_extent()
            middle = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
            below = [c for at, c in grounds(axes) if at.contains(*middle)] or ["white"]
            plate = text.get_bbox_patch() is not None
            assert figures.contrast(text.get_color(), "white" if plate else below[-1]) >= 4.5, text


@pytest.mark.parametrize("name", SEEN)
def test_lines_and_areas_of_a_figure_stand_out(name):
    figure = drawn(name)
    for axes in figure.axes:
        for line in axes.lines:
            if line.get_marker() == ".":
                continue  # one sample of hundreds, pale so that many show; their median is not
            colours = [line.get_color()] if line.get_linestyle() != "None" else []
            if line.get_marker() not in ("None", "", " "):
                faces = line.get_markerfacecolor(), line.get_markeredgecolor()
                colours.append(max(faces, key=lambda face: figures.contrast(face, "white")))
            for colour in colours:
                alpha = line.get_alpha() or 1
                assert figures.contrast((colour, alpha), "white") >= 3, line
        for area in axes.collections:
            if isinstance(area, PolyCollection | PathCollection):
                assert figures.contrast(tuple(area.get_edgecolor()[0]), "white") >= 3, area
