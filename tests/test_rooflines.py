"""The roofline: points stand where their numbers say, and texts can be read."""

from __future__ import annotations

import pytest

from labkit import figures
from labkit.peaks import CopyRate, GemmRate, Peaks
from labkit.results import Comparison
from labkit.rooflines import place
from labkit.traces import OperatorUse, Trace
from labkit.trials import Trial

PEAKS = Peaks(
    (CopyRate(2**20, 100e9), CopyRate(2**28, 20e9)), (GemmRate(512, 80e9), GemmRate(1024, 200e9))
)


def trial(name, seconds, **known):
    return Trial(name, (seconds,) * 20, tuple(range(20)), **known)


COMPARISON = Comparison(
    {
        "loop": trial("loop", 1e-2, flops=2e6, bytes_moved=8e6),
        "vector": trial("vector", 1e-4, flops=2e6, bytes_moved=8e6),
        "product": trial("product", 1e-2, flops=1e9, bytes_moved=1e6),
        "unknown": trial("unknown", 1e-2),
    }
)


def test_a_point_above_the_roof_of_memory_is_not_called_cached_without_reason():
    moved = {share: trial("x", 0.4 / share, flops=1e9, bytes_moved=8e9) for share in (1.05, 1.3, 2)}
    texts = {s: str(*place(PEAKS, Comparison({"x": t}))) for s, t in moved.items()}
    assert texts[1.05].endswith("(at the roof)")
    assert texts[1.3].endswith("(reads more than a copy does, or from a cache)")
    assert texts[2].endswith("(data from a cache)")


def test_a_traced_variant_needs_no_numbers_of_its_author():
    use = OperatorUse("aten.mm", "float32", "cpu", "8x8, 8x8", 1, 1e-3, 8_000_000)
    seen = trial("x", 1e-3, trace=Trace((use,), flops=2_000_000))
    (point,) = place(PEAKS, Comparison({"x": seen}))
    assert point.intensity_flops_per_byte == 0.25


def test_points_stand_at_their_intensity_and_rate():
    loop, vector, product = place(PEAKS, COMPARISON)
    assert (loop.intensity_flops_per_byte, loop.flops_per_s) == (0.25, pytest.approx(2e8))
    # 0.25 FLOP/B at 20 GB/s allows 5 GFLOP/s.
    assert loop.share == pytest.approx(0.04)
    assert vector.share == pytest.approx(4)
    assert product.share == pytest.approx(0.5)
    assert str(product) == "product: 100 GFLOP/s, 50 % of the limit"
    assert str(vector).endswith("400 % of the limit (data from a cache)")


def test_above_the_roof_of_arithmetic_it_was_no_cache():
    fast = trial("int8", 1e-3, flops=1e9, bytes_moved=1e6)
    near = trial("float32", 4.9e-3, flops=1e9, bytes_moved=1e6)
    above, at = place(PEAKS, Comparison({"int8": fast, "float32": near}))
    assert str(above).endswith("500 % of the limit (faster than the products of the roof)")
    assert str(at).endswith("100 % of the limit (at the roof)")


def test_the_figure_shows_every_point_and_both_roofs():
    figure = PEAKS.plot(COMPARISON)
    (axes,) = figure.axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels[0] == "from a cache: 100 GB/s"
    assert labels[1] == "from memory: 20 GB/s; products: 200 GFLOP/s"
    assert [label.split(":")[0] for label in labels[2:]] == ["loop", "vector", "product"]
    assert axes.get_xlabel().endswith("the roof is flat from 10 on")
    assert axes.get_ylabel() == "rate (FLOP/s)"
    low, high = axes.get_xlim()
    assert low < 0.25
    assert high > 1000
    assert axes.get_ylim()[0] < 2e8


def test_without_points_there_is_the_roof():
    assert figures.to_png(PEAKS.plot()).startswith(b"\x89PNG")
    assert PEAKS.plot()._repr_png_().startswith(b"\x89PNG")


def test_peaks_are_a_table_that_regression_tests_leave_out():
    html = PEAKS._repr_html_()
    assert html.startswith('<div class="labkit-result">')
    assert "200 GFLOP/s" in html
    assert repr(PEAKS) == "Peaks(cpu)"
