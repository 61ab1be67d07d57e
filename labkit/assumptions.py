"""Predictions as text and HTML, with what they assume."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from labkit.tables import result_html
from labkit.units import format_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def as_lines(assumptions: Iterable[str]) -> list[str]:
    """A line for each assumption, to stand under a table.

    >>> as_lines(["nobody waits"])
    ['assumed: nobody waits']
    """
    return [f"assumed: {line}" for line in assumptions]


def html(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    assumptions: Iterable[str],
    notes: Iterable[str] = (),
) -> str:
    """A table of predictions with its assumptions, marked as a result.

    Args:
        head: of the columns.
        rows: cells.
        caption: of the table.
        assumptions: each a sentence.
        notes: said before them.
    """
    items = "".join(f"<li>{escape(line)}</li>" for line in assumptions)
    said = "".join(f"<p>{escape(note)}</p>" for note in notes)
    inside = f"{said}<p>Assumed:</p><ul>{items}</ul>"
    table = result_html(head, rows, caption)
    return f'{table}<div class="labkit-result">{inside}</div><!-- labkit-result -->'


def seconds(time_s: float) -> str:
    """The time of a step: in columns, without minutes and milliseconds, it is easy to compare.

    >>> seconds(61.94), seconds(0.0088)
    ('61.9 s', '0.0088 s')
    """
    return f"{time_s:.3g} s"


def overlap_words(overlap: float) -> str:
    """A share of overlap, for a line or a column.

    >>> overlap_words(0), overlap_words(0.5)
    ('no overlap', 'overlap with 50 %')
    """
    known = {0.0: "no overlap", 1.0: "full overlap"}
    return known.get(overlap, f"overlap with {format_share(overlap)}")


def check_overlap(overlap: float) -> None:
    """Refuse what is no share."""
    if not 0 <= overlap <= 1:
        raise ValueError(f"overlap={overlap}: give a share from 0 (none) to 1 (all)")
