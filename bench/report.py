"""Figures with their targets, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: that was measured.
        target: in words; empty if there is none.
        labkit: the figure of labkit, in words.
        met: whether the target is met; None without a target.
        peers: figures of other tools in the same run, by name.
    """

    what: str
    target: str
    labkit: str
    met: bool | None
    peers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """The rows of one part, with what a reader has to know about them."""

    title: str
    rows: tuple[Row, ...]
    notes: str = ""

    @property
    def missed(self) -> list[Row]:
        """Rows whose target is not met."""
        return [row for row in self.rows if row.met is False]

    def to_markdown(self) -> str:
        """A heading, the table, the notes."""
        peers = list(dict.fromkeys(name for row in self.rows for name in row.peers))
        head = ["what", "target", "labkit", "", *peers]
        lines = [f"## {self.title}", "", _line(head), _line(["---"] * len(head))]
        for row in self.rows:
            state = {True: "met", False: "MISSED", None: ""}[row.met]
            others = [row.peers.get(name, "") for name in peers]
            lines.append(_line([row.what, row.target, row.labkit, state, *others]))
        return "\n".join([*lines, "", self.notes]).rstrip() + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def of(count: int, total: int) -> str:
    """A count of a total: ``3 of 40``."""
    return f"{count} of {total}"


def middle_s(times_s: list[float]) -> str:
    """The median of some durations, for people."""
    return f"median {median(times_s):.2f} s" if times_s else "n/a"
