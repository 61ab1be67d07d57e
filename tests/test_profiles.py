"""What profilers found: the right thing on top, and nothing left behind."""

from __future__ import annotations

import cProfile
import linecache
from pathlib import Path

import line_profiler
import memory_profiler
import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from labkit import figures, profiles

CELL = """\
def grow():
    kept = []
    for _ in range(3):
        kept.append(bytearray(40_000_000))
    return len(kept)
"""


def slow():
    # In one function, so that no other comes near it.
    total = 0
    for n in range(200_000):
        total += n * n
    return total


def fast():
    return 1 + 1


def both():
    slow()
    fast(), fast(), fast()


def cell_function(tmp_path):
    """A function whose source is known to linecache only, as that of a notebook cell."""
    path = str(tmp_path / "ipykernel_1" / "2.py")
    linecache.cache[path] = (len(CELL), None, CELL.splitlines(keepends=True), path)
    namespace = {}
    exec(compile(CELL, path, "exec"), namespace)  # noqa: S102  (what a kernel does)
    return namespace["grow"]


def test_cprofile_has_the_function_with_most_own_time_on_top():
    with cProfile.Profile() as profiler:
        both()
    found = profiles.functions(profiler)
    assert found.top.startswith("slow")
    assert [row[1] for row in found.rows if row[0].startswith(("slow", "fast"))] == ["1", "3"]
    assert found.share_of("slow") > 0.3
    assert found.share_of("no such function") == 0


def test_line_profiler_has_the_slowest_line_on_top():
    profiler = line_profiler.LineProfiler(both)
    profiler.runcall(both)
    found = profiles.lines(profiler)
    assert found.top == "slow()"
    assert found.share_of("slow()") > 0.9


def test_memory_profiler_finds_the_line_of_a_cell_that_keeps_memory(tmp_path):
    grow = cell_function(tmp_path)
    with profiles.on_disk(grow):
        profiler = memory_profiler.LineProfiler()
        profiler.add_function(grow)
        profiler.runctx("grow()", {"grow": grow}, {})
    found = profiles.memory_lines(profiler)
    assert found.top == "kept.append(bytearray(40_000_000))"
    assert found.rows[0][1] == "3"


def test_the_file_of_a_cell_is_gone_afterwards(tmp_path):
    grow = cell_function(tmp_path)
    path = tmp_path / "ipykernel_1" / "2.py"
    with profiles.on_disk(grow):
        assert path.read_text() == CELL
    assert not path.exists()


def test_a_real_file_is_left_alone():
    before = Path(__file__).read_bytes()
    with profiles.on_disk(slow):
        pass
    assert Path(__file__).read_bytes() == before


@pytest.fixture(scope="module")
def recorded():
    a = torch.ones(300, 200)
    b = torch.ones(200, 300)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _ in range(2):
            with record_function("step"):
                (a @ b).relu()
    return profiler


def test_operators_come_with_their_shapes(recorded):
    found = profiles.operators(recorded)
    product = next(row for row in found.rows if row[0] == "mm")
    assert product[1:3] == ("(300, 200) (200, 300)", "2")


def test_the_flame_graph_shows_the_last_block_and_what_it_called(recorded):
    figure = profiles.flame_figure(recorded, "step")
    assert figures.to_png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert len(axes.patches) >= 3
    assert axes.texts[0].get_text() == "step"


def test_an_unknown_block_says_what_to_write(recorded):
    with pytest.raises(ValueError, match=r"with record_function\('epoch'\)"):
        profiles.flame_figure(recorded, "epoch")


def test_a_table_of_findings_is_left_out_of_regression_tests():
    found = profiles.Findings("lines", ("line", "time"), (("a < b", "1 ms"),), (1.0,))
    assert repr(found) == "Findings(lines)"
    html = found._repr_html_()
    assert html.startswith('<div class="labkit-result">')
    assert "a &lt; b" in html


def test_an_empty_table_has_nothing_on_top():
    assert profiles.Findings("lines", ("line",), (), ()).top == ""
