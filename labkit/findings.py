"""What `labkit doctor` found: for a terminal, and for a teacher who collects it.

What a finding says holds no path and no name of a person or a host, except in its ``details``,
which stay on this computer.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.machines import machine

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _INDENT = 80, 19


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at.
        status: ok; warning: the lab runs, with less; problem: something will stop with an error.
        seen: what was seen, with its number.
        means: what follows from it.
        remedy: what to do or to type.
        notebooks: the first two digits of those that it concerns; empty: all.
        details: of this computer (paths, texts of other programs); never in `to_dict`.

    Raises:
        ValueError: a warning or a problem without its meaning or its remedy.

    >>> Finding("cores", Status.WARNING, "0.5 of 4 cores")
    Traceback (most recent call last):
    ...
    ValueError: cores is a warning: say what it means and the remedy
    """

    check: str
    status: Status
    seen: str
    means: str = ""
    remedy: str = ""
    notebooks: tuple[str, ...] = ()
    details: str = ""

    def __post_init__(self) -> None:
        if self.status is not Status.OK and not (self.means and self.remedy):
            raise ValueError(f"{self.check} is a {self.status}: say what it means and the remedy")

    def to_dict(self) -> dict[str, Any]:
        """As plain data for somebody else: without the details."""
        return {
            "check": self.check,
            "status": self.status.value,
            "seen": self.seen,
            "means": self.means,
            "remedy": self.remedy,
            "notebooks": list(self.notebooks),
        }


def text(finding: Finding) -> str:
    """For a terminal of 80 columns.

    >>> print(text(Finding("port", Status.OK, "port 8888 is free")))
    ok       port      port 8888 is free
    """
    word = "notebook" if len(finding.notebooks) == 1 else "notebooks"
    numbers = f" ({word} {', '.join(finding.notebooks)})" if finding.notebooks else ""
    bad = finding.status is not Status.OK
    paragraphs = [finding.seen + ("" if bad else numbers)]
    if bad:
        paragraphs += [f"means: {finding.means}{numbers}", f"to do: {finding.remedy}"]
        paragraphs += [f"details: {finding.details[:400]}"] if finding.details else []
    head = f"{finding.status.value:9}{finding.check:10}"
    lines: list[str] = []
    for paragraph in paragraphs:
        lines += textwrap.wrap(
            paragraph, _WIDTH - _INDENT, break_on_hyphens=False, break_long_words=False
        )
    return "\n".join(
        (head if i == 0 else " " * _INDENT) + line for i, line in enumerate(lines)
    ).rstrip()


def summary(findings: Sequence[Finding]) -> str:
    """The last line.

    >>> summary([Finding("port", Status.OK, "port 8888 is free")])
    'No problem, no warning.'
    """
    counts = {s: sum(f.status is s for f in findings) for s in (Status.PROBLEM, Status.WARNING)}
    parts = [f"{n or 'no'} {s}{'s' * (n > 1)}" for s, n in counts.items()]
    return f"{', '.join(parts).capitalize()}."


def collected(findings: Sequence[Finding]) -> dict[str, Any]:
    """For a teacher who collects them: no path, no name of a person or a host."""
    from labkit import __version__

    here = machine().to_dict()
    if here["compiler"]:  # CXX may name a path
        here["compiler"] = Path(here["compiler"]).name
    return {
        "kind": "doctor",
        "labkit": __version__,
        "machine": here,
        "findings": [finding.to_dict() for finding in findings],
    }
