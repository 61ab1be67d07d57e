"""Results that were measured on another machine, kept with the project.

They are shown beside what is measured live, with the machine's name and the date, and never mixed
with it: nothing here makes one comparison out of two machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.records import read_record
from labkit.sweeps import Sweep

if TYPE_CHECKING:
    from labkit.machines import Machine
    from labkit.results import Comparison


@dataclass(frozen=True)
class Recording:
    """One result of one machine.

    Attributes:
        name: of the experiment.
        machine: where it was measured.
        date: UTC, such as "2026-11-21".
        result: the comparison or sweep, with its raw samples.
    """

    name: str
    machine: Machine
    date: str
    result: Comparison | Sweep

    @property
    def place(self) -> str:
        """The accelerator, or the processor where there is none."""
        names = [a.name for a in self.machine.accelerators or ()]
        return names[0] if names else self.machine.processor

    @property
    def versions(self) -> str:
        """Of the libraries that were measured, for people."""
        return ", ".join(f"{name} {version}" for name, version in self.machine.versions.items())

    @property
    def label(self) -> str:
        """Machine, date and versions, for people."""
        return f"{self.place}, recorded {self.date} ({self.versions})"


class Recordings(Mapping[str, list[Recording]]):
    """Recordings by the name of their experiment; each name has one for each machine."""

    def __init__(self, found: Mapping[str, list[Recording]], skipped: Mapping[str, str]) -> None:
        self._found = dict(found)
        self.skipped = dict(skipped)

    def __getitem__(self, name: str) -> list[Recording]:
        if name not in self._found:
            raise KeyError(f"no recording of {name!r}; there are {list(self._found) or 'none'}")
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return "Recordings"

    @property
    def lines(self) -> list[str]:
        """What there is, in words."""
        if not self._found:
            none = (
                "No machine has been recorded yet. On a machine with an accelerator, "
                "`make record` measures the same experiments and writes them here."
            )
            return [none]
        return [
            f"{each.name}: {sentence} ({each.label})"
            for group in self._found.values()
            for each in group
            for sentence in each.result.sentences
        ]

    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"skipped {k}: {v}" for k, v in self.skipped.items())])

    def _repr_html_(self) -> str:
        from labkit import tables

        return tables.recordings_as_html(self)


def recorded(folder: str | Path = "../data/recorded", *, prefix: str = "") -> Recordings:
    """Read what `make record` wrote: ``folder/MACHINE/NAME.json``.

    A file that cannot be read is named in ``.skipped``, and the others are there.

    Args:
        folder: with one folder for each machine; it may be missing.
        prefix: of the names that are wanted, such as "02-gpu-vs-cpu ".

    >>> len(recorded("no such folder"))
    0
    """
    found: dict[str, list[Recording]] = {}
    skipped = {}
    for path in sorted(Path(folder).glob("*/*.json")):
        try:
            recording = _read(path)
        except (OSError, ValueError) as error:
            skipped[f"{path.parent.name}/{path.name}"] = f"{type(error).__name__}: {error}"
            continue
        if recording.name.startswith(prefix):
            found.setdefault(recording.name.removeprefix(prefix), []).append(recording)
    return Recordings(found, skipped)


def _read(path: Path) -> Recording:
    record = read_record(path)
    result = record.result
    if isinstance(result, Sweep) and len(result.machines) > 1:
        raise ValueError(
            f"{len(result.machines)} machines measured it, and a recording is of one: record each "
            "on its own, without client="
        )
    first = next((c for c in record.comparisons if c.machine is not None), None)
    if first is None or first.machine is None:
        raise ValueError("it does not say on which machine it was measured")
    return Recording(path.stem, first.machine, first.started_utc[:10], result)
