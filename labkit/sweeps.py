"""The results of an experiment over a grid of parameters."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.files import SCHEMA_VERSION, save_new, seal, unseal
from labkit.results import Comparison
from labkit.statistics import Verdict
from labkit.units import format_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from matplotlib.figure import Figure

    from labkit.results import Ratio


@dataclass(frozen=True)
class SweepPoint:
    """One point of a sweep.

    Attributes:
        parameters: the values that were swept over, at this point.
        comparison: what was measured there; None if that raised.
        error: why there is no comparison.
        machine_id: on which machine, see `labkit.clients.machine_id`; empty if nobody noted it.
    """

    parameters: Mapping[str, Any]
    comparison: Comparison | None
    error: str = ""
    machine_id: str = ""


@dataclass(frozen=True)
class Sweep:
    """Comparisons over a grid of parameters.

    Attributes:
        swept: names of the parameters that vary, the first one on the axis of plots.
        points: in the order of the grid.
    """

    swept: tuple[str, ...]
    points: tuple[SweepPoint, ...]
    title: str = ""

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[SweepPoint]:
        return iter(self.points)

    @property
    def comparisons(self) -> list[Comparison]:
        """What was measured, in the order of the grid."""
        return [p.comparison for p in self.points if p.comparison is not None]

    @property
    def names(self) -> tuple[str, ...]:
        """All variants that occur, the baseline first."""
        return tuple(dict.fromkeys(n for c in self.comparisons for n in c.names))

    @property
    def machines(self) -> dict[str, str]:
        """The machines that measured something: a line about each, by its `machine_id`."""
        return {
            p.machine_id: p.comparison.machine.line() if p.comparison.machine else ""
            for p in self.points
            if p.comparison is not None
        }

    @property
    def slices(self) -> list[tuple[str, Sweep]]:
        """One sweep over the first parameter for each combination of the others.

        Where several machines measured, one for each of them: results of different machines are
        not compared. Each comes with a label such as "threads=4" or "threads=4, on 1f0c5a2e",
        empty if there is nothing to tell apart.
        """
        axis, *others = self.swept
        parts: dict[str, list[SweepPoint]] = {}
        several = len(self.machines) > 1
        for point in self.points:
            if several and point.comparison is None:
                continue
            labels = [f"{name}={point.parameters[name]}" for name in others]
            labels += [f"on {point.machine_id or 'an unknown machine'}"] if several else []
            parts.setdefault(", ".join(labels), []).append(point)
        return [(label, Sweep((axis,), tuple(p), self.title)) for label, p in parts.items()]

    def series(self, name: str) -> list[tuple[Any, Comparison]]:
        """(value of the first swept parameter, comparison) where the variant was measured."""
        axis = self.swept[0]
        return [
            (p.parameters[axis], p.comparison)
            for p in self.points
            if p.comparison is not None and name in p.comparison.trials
        ]

    def crossover(self, name: str) -> float | None:
        """Where the variant overtakes the baseline, or falls behind it.

        Between the last point on one side and the first on the other, interpolated on
        logarithmic axes where the parameter is positive. Points whose verdict is "same" or
        "inconclusive" are on no side; the line between the two goes through them.

        Returns:
            A value of the first swept parameter; None if there is no change of side, or if
            several machines measured: then each of the `slices` has its own.
        """
        if len(self.machines) > 1:
            return None
        seen = sorted(
            (float(value), ratio.speedup, ratio.verdict in ("faster", "slower"))
            for value, comparison in self.series(name)
            if isinstance(value, int | float)
            for ratio in [comparison[name]]
            if ratio.rounds
        )
        decided = [i for i, (_, _, on_a_side) in enumerate(seen) if on_a_side]
        for first, last in itertools.pairwise(decided):
            if (seen[first][1] > 1) == (seen[last][1] > 1):
                continue
            # Between two sides the line goes through the points that are on none.
            for (x0, y0, _), (x1, y1, _) in itertools.pairwise(seen[first : last + 1]):
                if (y0 > 1) != (y1 > 1):
                    share = math.log(y0) / (math.log(y0) - math.log(y1))
                    if x0 > 0:
                        return math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))
                    return x0 + share * (x1 - x0)
        return None

    @property
    def sentences(self) -> list[str]:
        """What each variant does over the sweep, in words."""
        result = []
        for label, part in self.slices:
            start = f"{label}: " if label else ""
            result += [start + sentence for sentence in _sentences(part)]
        for point in self.points:
            if point.error:
                values = ", ".join(f"{k}={v}" for k, v in point.parameters.items())
                result.append(f"{values} was not measured: {point.error}")
        return result

    def to_frame(self) -> pd.DataFrame:
        """One row a point and variant: the swept parameters, then as `Comparison.to_frame`.

        Where several machines measured, their identity follows the parameters as "machine".
        """
        import pandas as pd

        frames = []
        several = len(self.machines) > 1
        for point in self.points:
            if point.comparison is None:
                frame = pd.DataFrame([{"failure": point.error}])
            else:
                frame = point.comparison.to_frame()
            for i, name in enumerate(self.swept):
                frame.insert(i, name, point.parameters[name])
            if several:
                frame.insert(len(self.swept), "machine", point.machine_id)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def sample_rows(self) -> list[list[Any]]:
        """All raw samples: the swept parameters, then as `Comparison.sample_rows`."""
        several = len(self.machines) > 1
        head = [*self.swept, *["machine"] * several, "variant", "round", "time_s"]
        rows: list[list[Any]] = [head]
        for point in self.points:
            values = [point.parameters[name] for name in self.swept]
            values += [point.machine_id] * several
            if point.comparison is not None:
                rows += [[*values, *row] for row in point.comparison.sample_rows()[1:]]
        return rows

    def plot(self) -> Figure:
        """Time and speed-up against the first swept parameter."""
        from labkit import sweep_plots

        return sweep_plots.sweep_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "sweep",
            "swept": list(self.swept),
            "title": self.title,
            "points": [
                {
                    "parameters": dict(p.parameters),
                    "comparison": p.comparison.to_dict() if p.comparison else None,
                    "error": p.error,
                    "machine_id": p.machine_id,
                }
                for p in self.points
            ],
        }

    def to_json(self) -> str:
        """With all raw samples and a checksum, as `save` writes it."""
        return seal(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sweep:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: if it is not a sweep.
        """
        if data.get("kind") != "sweep":
            raise ValueError(f"kind is {data.get('kind')!r}: not a sweep saved by labkit")
        points = tuple(
            SweepPoint(
                p["parameters"],
                Comparison.from_dict(p["comparison"]) if p["comparison"] else None,
                p["error"],
                p.get("machine_id", ""),
            )
            for p in data["points"]
        )
        return cls(tuple(data["swept"]), points, data["title"])

    @classmethod
    def from_json(cls, text: str) -> Sweep:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is cut off, was changed, is of a newer version, or no sweep.
        """
        return cls.from_dict(unseal(text))

    def save(self, path: str | Path | None = None, *, person: str | None = None) -> Path:
        """Keep the sweep with all raw samples as JSON, written whole or not at all.

        Args and errors as of `labkit.Comparison.save`.
        """
        return save_new(self.to_dict(), path, person=person)

    @classmethod
    def load(cls, path: str | Path) -> Sweep:
        """Read a sweep that `save` wrote; raises as `from_json`, and OSError."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        return f"Sweep({', '.join(self.swept)}: {len(self.points)} points)"

    def __str__(self) -> str:
        from labkit import tables

        return tables.sweep_as_text(self)

    def _repr_html_(self) -> str:
        from labkit import tables

        return tables.sweep_as_html(self)


def _sentences(sweep: Sweep) -> list[str]:
    axis, result = sweep.swept[0], []
    for name in sweep.names[1:]:
        ratios = [(value, c[name]) for value, c in sweep.series(name)]
        verdicts = [r.verdict.value for _, r in ratios]
        where = sweep.crossover(name)
        if where is not None:
            first = next(v for v in verdicts if v in ("faster", "slower"))
            then = "faster" if first == "slower" else "slower"
            result.append(f"{name} is {first} at first and {then} above {axis} = {where:.3g}")
        elif (change := _change(ratios)) is not None:
            last, before, first_value, after = change
            result.append(
                f"{name} is {_in_words(before)} up to {axis} = {last} and {_in_words(after)} from "
                f"{axis} = {first_value} on"
            )
        elif ratios:
            low, high = min(r.speedup for _, r in ratios), max(r.speedup for _, r in ratios)
            words = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
            result.append(
                f"{name} does not cross the baseline: {format_ratio(low)} to "
                f"{format_ratio(high)} ({words})"
            )
    return result


def _change(ratios: list[tuple[Any, Ratio]]) -> tuple[Any, Verdict, Any, Verdict] | None:
    """Where one verdict gives way to another, if that happens once: the values on both sides."""
    if not all(isinstance(value, int | float) for value, _ in ratios):
        return None
    known = [(value, ratio.verdict) for value, ratio in sorted(ratios, key=lambda pair: pair[0])]
    known = [pair for pair in known if pair[1] is not Verdict.INCONCLUSIVE]
    changes = [(*one, *other) for one, other in itertools.pairwise(known) if one[1] is not other[1]]
    return changes[0] if len(changes) == 1 else None


def _in_words(verdict: Verdict) -> str:
    return "the same" if verdict is Verdict.SAME else verdict.value
