"""What profilers found, as short tables and a flame graph that a notebook can show.

The profilers are the field's own (cProfile, line_profiler, memory_profiler, torch.profiler);
here is only what reads them.
"""

from __future__ import annotations

import contextlib
import linecache
import pstats
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import descriptions, kineto
from labkit.figures import COLOURS, ink, new_figure
from labkit.units import format_bytes, format_share, format_time

if TYPE_CHECKING:
    import cProfile
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.figure import Figure

# The reader calls torch.profiler in cells of the notebook.
kineto.quiet()


@dataclass(frozen=True)
class Findings:
    """A table with what costs most on top.

    Attributes:
        title: what was looked at.
        head: names of the columns.
        rows: cells as text; the first of a row is the name.
        shares: of the whole, one for each row, from 0 to 1.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    shares: tuple[float, ...]

    @property
    def top(self) -> str:
        """The name in the first row; empty without rows."""
        return self.rows[0][0] if self.rows else ""

    def share_of(self, name: str) -> float:
        """The share of the rows whose name contains a text; 0 if there is none."""
        return sum(s for row, s in zip(self.rows, self.shares, strict=True) if name in row[0])

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return f"Findings({self.title})"

    def _repr_html_(self) -> str:
        from labkit import tables

        return tables.findings_as_html(self)


def functions(profiler: cProfile.Profile, rows: int = 8) -> Findings:
    """Functions by their own time (without what they call), from cProfile.

    >>> import cProfile
    >>> with cProfile.Profile() as profiler:
    ...     _ = sorted(range(100_000), key=lambda n: -n)
    >>> functions(profiler).head
    ('function', 'calls', 'own time', 'share', 'with what it calls')
    """
    stats: Any = pstats.Stats(profiler)
    total_s = stats.total_tt or 1.0
    found = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:rows]
    return Findings(
        "functions by own time (cProfile)",
        ("function", "calls", "own time", "share", "with what it calls"),
        tuple(
            (
                _place(where),
                str(calls),
                format_time(own_s),
                format_share(round(own_s / total_s, 3)),
                format_time(with_calls_s),
            )
            for where, (_, calls, own_s, with_calls_s, _) in found
        ),
        tuple(own_s / total_s for _, (_, _, own_s, _, _) in found),
    )


def lines(profiler: Any, rows: int = 6) -> Findings:
    """Lines by their time, from a ``line_profiler.LineProfiler`` (``%lprun -r``)."""
    stats = profiler.get_stats()
    unit_s = stats.unit
    found = [
        (_line(path, number), hits, ticks * unit_s)
        for (path, _, _), timings in stats.timings.items()
        for number, hits, ticks in timings
    ]
    total_s = sum(seconds for _, _, seconds in found) or 1.0
    found = sorted(found, key=lambda line: -line[2])[:rows]
    return Findings(
        "lines by time (line_profiler)",
        ("line", "hits", "time", "share"),
        tuple(
            (text, str(hits), format_time(s), format_share(round(s / total_s, 3)))
            for text, hits, s in found
        ),
        tuple(s / total_s for _, _, s in found),
    )


def memory_lines(profiler: Any, rows: int = 6) -> Findings:
    """Lines by the memory that they added, from a ``memory_profiler.LineProfiler``.

    What a line takes and gives back while it runs is not in it: memory_profiler looks between
    lines only.
    """
    found = [
        (_line(path, number), int(measured[2]), measured[0] * 2**20)
        for path, numbered in profiler.code_map.items()
        # The line of the def holds what was there before, not an increment.
        for number, measured in list(numbered)[1:]
        if measured
    ]
    total = sum(max(0.0, grown) for _, _, grown in found) or 1.0
    found = sorted(found, key=lambda line: -line[2])[:rows]
    return Findings(
        "lines by memory added (memory_profiler)",
        ("line", "hits", "added"),
        tuple((text, str(hits), format_bytes(grown)) for text, hits, grown in found),
        tuple(max(0.0, grown) / total for _, _, grown in found),
    )


def operators(profiler: Any, rows: int = 8) -> Findings:
    """Operators with their input shapes by own time, from ``torch.profiler.profile``.

    Args:
        profiler: after the block, with ``record_shapes=True``.
        rows: how many.
    """
    found = [
        (event, event.self_cpu_time_total / 1e6)
        for event in profiler.key_averages(group_by_input_shape=True)
        if event.key.startswith("aten::")
    ]
    total_s = sum(seconds for _, seconds in found) or 1.0
    found = sorted(found, key=lambda pair: -pair[1])[:rows]
    return Findings(
        "operators by own time (torch.profiler)",
        ("operator", "input shapes", "calls", "own time", "share"),
        tuple(
            (
                event.key.removeprefix("aten::"),
                _shapes(event.input_shapes),
                str(event.count),
                format_time(s),
                format_share(round(s / total_s, 3)),
            )
            for event, s in found
        ),
        tuple(s / total_s for _, s in found),
    )


@contextlib.contextmanager
def on_disk(*functions: Callable[..., Any]) -> Iterator[None]:
    """Put the cells that define these functions where memory_profiler looks for them.

    It reads the source from a file, which a cell has not; the files are gone afterwards.
    """
    written: list[Path] = []
    try:
        for function in functions:
            path = Path(function.__code__.co_filename)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(linecache.getlines(str(path))), encoding="utf-8")
                written.append(path)
        yield
    finally:
        for path in written:
            path.unlink(missing_ok=True)


def flame_figure(profiler: Any, root: str, depth: int = 6) -> Figure:
    """The last block of a name, and what it called, as a flame graph with the root on top.

    Args:
        profiler: a ``torch.profiler.profile`` after its block.
        root: the name that ``torch.profiler.record_function`` was given.
        depth: how many levels below the root.

    Raises:
        ValueError: there is no such block.
    """
    events = profiler.events()
    roots = [e for e in events if e.name == root and e.time_range.elapsed_us() > 0]
    if not roots:
        raise ValueError(f"no block {root!r} was recorded: with record_function({root!r}): ...")
    top = roots[-1]
    start_us, whole_us = top.time_range.start, top.time_range.elapsed_us()
    children = [
        (child.name.removeprefix("aten::"), child.time_range.elapsed_us())
        for child in top.cpu_children
    ]
    words = descriptions.flames(root, whole_us, children)
    figure = new_figure(9.0, 1.0 + 0.42 * (depth + 1), words)
    axes = figure.add_subplot()

    def draw(event: Any, level: int, colour: str) -> None:
        left, width = event.time_range.start - start_us, event.time_range.elapsed_us()
        if width < 0.004 * whole_us or level > depth:
            return
        axes.barh(level, width, 0.9, left, color=colour, edgecolor="white", linewidth=0.6)
        # A letter takes about 0.9 % of the width.
        letters = int(width / whole_us * 100 / 0.95)
        name = event.name.removeprefix("aten::")
        if letters >= 4:
            text = name if len(name) <= letters else name[: letters - 1] + "…"
            axes.text(
                left + width / 2,
                level,
                text,
                ha="center",
                va="center",
                fontsize=7.5,
                color=ink(colour),
            )
        for number, child in enumerate(event.cpu_children):
            shade = COLOURS[1 + number % 6] if level == 0 else colour
            draw(child, level + 1, shade)

    draw(top, 0, "#000000")
    axes.set_ylim(depth + 0.6, -0.6)
    axes.set_xlim(0, whole_us)
    axes.set_yticks([])
    axes.set_xlabel("time since the beginning of the block (µs)")
    axes.set_ylabel("called by the row above")
    return figure


def _place(where: tuple[str, int, str]) -> str:
    path, _, name = where
    if path == "~":
        return name.strip("<>")
    inside = "" if "ipykernel" in path or path.startswith("<") else f" ({Path(path).name})"
    return f"{name}{inside}"


def _line(path: str, number: int) -> str:
    return linecache.getline(path, number).strip() or f"line {number}"


def _shapes(shapes: Sequence[Any]) -> str:
    return " ".join(f"({', '.join(map(str, s))})" for s in shapes if s)
