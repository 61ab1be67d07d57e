"""What more workers can bring: the laws of Amdahl and Gustafson, fitted to measured speed-ups.

Both laws divide the work into a serial share, which one worker does alone, and a rest, which all
share without loss. Amdahl keeps the work fixed (strong scaling) and asks for the speed-up T1/Tp.
Gustafson lets it grow with the workers (weak scaling) and asks for the scaled speed-up p T1/Tp,
where Tp is the time of p workers for p times the work; his share is that of the time with p
workers. Each law has one unknown and is monotone in it, so every measured interval of a speed-up
is an interval of the serial share, and the shares that fit all points are what these intervals
have in common. If there are none, the law does not describe the points.

Pure functions of numbers: nothing here measures.

Sources: Amdahl, "Validity of the single processor approach to achieving large scale computing
capabilities", AFIPS 1967; Gustafson, "Reevaluating Amdahl's law", Communications of the ACM 31(5),
1988; Karp and Flatt, "Measuring parallel processor performance", Communications of the ACM 33(5),
1990.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.claims import CONFIRMED, INCONCLUSIVE, NOT_HERE, NOT_MEASURED, REFUTED, Claim, held
from labkit.results import Comparison
from labkit.units import format_ratio, format_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.figure import Figure

    from labkit.results import Ratio

AMDAHL, GUSTAFSON = "Amdahl", "Gustafson"
_NUMBER = re.compile(r"\d+\b")


def amdahl(share: float, workers: float) -> float:
    """The speed-up of ``workers`` on fixed work of which ``share`` is serial.

    Args:
        share: from 0 to 1, of the time of one worker.
        workers: at least 1.

    >>> amdahl(0.0, 4), round(amdahl(0.1, 4), 2), round(amdahl(0.1, 1e9), 2)
    (4.0, 3.08, 10.0)
    """
    return 1 / (share + (1 - share) / workers)


def gustafson(share: float, workers: float) -> float:
    """The scaled speed-up of ``workers`` on work that grows with them.

    Args:
        share: the serial share, from 0 to 1, of the time with all workers.
        workers: at least 1.

    >>> gustafson(0.0, 4), gustafson(0.25, 4)
    (4.0, 3.25)
    """
    return workers - share * (workers - 1)


def karp_flatt(speedup: float, workers: float) -> float:
    """The serial share that one speed-up would have under Amdahl's law; the law turned round.

    Where it grows with the workers, what limits them is no serial part but a cost of sharing.

    Args:
        speedup: T1/Tp; one above ``workers`` gives a share below 0.
        workers: more than 1.

    Raises:
        ValueError: there is no law for one worker.

    >>> round(karp_flatt(3.0, 4), 3), karp_flatt(4.0, 4)
    (0.111, 0.0)
    """
    _more_than_one(workers)
    return (_inverse(speedup) - 1 / workers) / (1 - 1 / workers)


def gustafson_share(scaled_speedup: float, workers: float) -> float:
    """The serial share that one scaled speed-up would have under Gustafson's law.

    Args:
        scaled_speedup: p T1/Tp.
        workers: more than 1.

    Raises:
        ValueError: there is no law for one worker.

    >>> gustafson_share(3.25, 4)
    0.25
    """
    _more_than_one(workers)
    return (workers - scaled_speedup) / (workers - 1)


def _more_than_one(workers: float) -> None:
    if not workers > 1:
        raise ValueError(f"workers={workers}: a share takes more than 1, to compare with 1")


def _inverse(speedup: float) -> float:
    return math.inf if speedup == 0 else 1 / speedup


@dataclass(frozen=True)
class Point:
    """What a number of workers reached.

    Attributes:
        workers: how many; more than 1.
        speedup: strong scaling: T1/Tp; weak scaling: the scaled speed-up p T1/Tp.
        low, high: its interval; 0 and infinite where it is not known yet.
    """

    workers: int
    speedup: float
    low: float
    high: float

    @property
    def efficiency(self) -> float:
        """The share of the workers that is put to use; 1 is ideal."""
        return self.speedup / self.workers

    @property
    def interval_text(self) -> str:
        """Of the speed-up, for a person."""
        if not math.isfinite(self.high):
            return "[not yet known]"
        return f"[{format_ratio(self.low)}, {format_ratio(self.high)}]"


@dataclass(frozen=True, repr=False)
class Scaling:
    """Speed-ups of several numbers of workers, and the law that describes them, if it does.

    Attributes:
        law: "Amdahl" for fixed work, "Gustafson" for work that grows.
        points: by number of workers; one worker is the measure of all and no point.
        cores: that may really be used; None: not known. The laws give each worker a core, so
            points of more workers are drawn and not fitted.
        unit: what the workers are, such as "threads".
        held: says so, where other programs held cores meanwhile.
        missing: why no law can be fitted; empty where one can.

    >>> found = strong({2: (1.70, 1.82, 1.90), 4: (2.95, 3.08, 3.20)})
    >>> print(f"{found.share:.3f}, from {found.low:.3f} to {found.high:.3f}")
    0.099, from 0.083 to 0.119
    >>> found.below(0.2), found.below(0.05), found.below(0.11)
    (True, False, None)
    >>> print(strong({2: (1.9, 1.95, 2.0), 4: (1.9, 2.0, 2.1)}).sentences[0])
    Amdahl's law does not describe these points: no serial share fits all intervals
    """

    law: str
    points: tuple[Point, ...]
    cores: float | None = None
    unit: str = "workers"
    held: str = ""

    @property
    def fitted(self) -> tuple[Point, ...]:
        """The points that have a core for each worker."""
        most = math.inf if self.cores is None else self.cores + 1e-9
        return tuple(p for p in self.points if p.workers <= most)

    def share_of(self, point: Point) -> tuple[float, float, float]:
        """The serial share that one point would have under the law: low, middle, high.

        Not cut off at 0 and 1: below 0, the speed-up is more than ideal.
        """
        turned = karp_flatt if self.law == AMDAHL else gustafson_share
        low, middle, high = (
            turned(s, point.workers) for s in (point.high, point.speedup, point.low)
        )
        return low, middle, high

    @property
    def _common(self) -> tuple[float, float]:
        """What the intervals of the fitted points have in common; low above high: nothing."""
        intervals = [self.share_of(p) for p in self.fitted]
        low = max([0.0, *(low for low, _, _ in intervals)])
        return low, min([1.0, *(high for _, _, high in intervals)])

    @property
    def describes(self) -> bool | None:
        """Whether some serial share fits all intervals; None where no point can be fitted."""
        low, high = self._common
        return low <= high if self.fitted else None

    @property
    def low(self) -> float:
        """Lower end of the serial shares that fit all intervals; NaN if there are none."""
        return self._common[0] if self.describes else math.nan

    @property
    def high(self) -> float:
        """Upper end of the serial shares that fit all intervals; NaN if there are none."""
        return self._common[1] if self.describes else math.nan

    @property
    def share(self) -> float:
        """The share whose speed-ups are closest to the points', among those that fit.

        Least squares of log speed-ups, because a ratio is as far from 1 as its inverse is; NaN
        where no share fits.
        """
        if not self.describes:
            return math.nan
        low, high = self._common
        middles = [self.share_of(p)[1] for p in self.fitted]
        low, high = (min(max(end, low), high) for end in (min(middles), max(middles)))
        if high - low < 1e-9:
            return low

        from scipy.optimize import minimize_scalar

        found = minimize_scalar(self._misfit, bounds=(low, high), method="bounded")
        return float(found.x)

    def _misfit(self, share: float) -> float:
        return sum(math.log(self.at(p.workers, share) / p.speedup) ** 2 for p in self.fitted)

    def at(self, workers: float, share: float | None = None) -> float:
        """The speed-up of the law, with the fitted share or another one."""
        law = amdahl if self.law == AMDAHL else gustafson
        return law(self.share if share is None else share, workers)

    def below(self, threshold: float) -> bool | None:
        """Whether the serial share is below a threshold; None where the points do not tell."""
        if not self.describes:
            return None
        return True if self.high < threshold else False if self.low >= threshold else None

    @property
    def missing(self) -> str:
        """Why no law can be fitted; empty where one can."""
        if not self.fitted:
            return (
                f"A law takes at least 2 {self.unit} with a core each; "
                f"{cores_text(self.cores or 0)} may be used here."
            )
        return self.held

    def claim_share(self, *, at_least: float = 0.0, at_most: float = 1.0) -> Claim:
        """Print whether the serial share lies between two bounds.

        Returns:
            The `Claim`: CONFIRMED where all shares that fit lie between them, REFUTED where none
            does or the law does not describe the points, INCONCLUSIVE otherwise, and NOT HERE
            where there are too few cores or others held them.

        Raises:
            ValueError: bounds that are no shares.

        >>> found = strong({2: (1.70, 1.82, 1.90), 4: (2.95, 3.08, 3.20)})
        >>> claim = found.claim_share(at_most=0.2)  # doctest: +ELLIPSIS
        serial share (Amdahl): 9.95 % [8.33 %, 11.9 %]  CONFIRMED: from 0 % to 20 %...
        """
        if not 0 <= at_least <= at_most <= 1:
            raise ValueError(
                f"at_least={at_least}, at_most={at_most}: give shares such as 0.1, 0.3"
            )
        sentence = f"from {format_share(at_least)} to {format_share(at_most)}"
        subject = f"serial share ({self.law})"
        seen = self.share_text if self.describes else "no share fits all points"
        inside = self.describes and at_least <= self.low and self.high <= at_most
        outside = not self.describes or self.low > at_most or self.high < at_least
        state = CONFIRMED if inside else REFUTED if outside else INCONCLUSIVE
        if self.missing:
            state, seen = NOT_HERE, seen if self.fitted else NOT_MEASURED
        # The same words in every state, so that a regression test finds its claim again.
        claim = Claim(subject, seen, state, sentence, "free cores", self.missing)
        print(claim)
        return claim

    def claim_efficiency(self, workers: int, *, at_least: float) -> Claim:
        """Print whether so many workers put at least a share of themselves to use.

        Returns:
            The `Claim`, as `claim_share` does.

        Raises:
            ValueError: no such point, or no share above 0.

        >>> found = strong({2: (1.70, 1.82, 1.90), 4: (2.95, 3.08, 3.20)}, unit="threads")
        >>> claim = found.claim_efficiency(2, at_least=0.8)
        efficiency of 2 threads: 91 % [85 %, 95 %]  CONFIRMED: at least 80 % (needs 2 free cores)
        """
        point = next((p for p in self.points if p.workers == workers), None)
        if point is None or not at_least > 0:
            known = ", ".join(str(p.workers) for p in self.points)
            raise ValueError(
                f"workers={workers}, at_least={at_least}: give one of {known}, and a share such "
                "as 0.8"
            )
        low, middle, high = (s / workers for s in (point.low, point.speedup, point.high))
        seen = f"{_percent(middle)} [{_percent(low)}, {_percent(high)}]"
        state = CONFIRMED if low >= at_least else REFUTED if high < at_least else INCONCLUSIVE
        missing = self.missing
        if not missing and point not in self.fitted:
            missing = f"{workers} {self.unit} have no core each here."
        claim = Claim(
            f"efficiency of {workers} {self.unit}",
            seen,
            NOT_HERE if missing else state,
            f"at least {_percent(at_least)}",
            f"{workers} free cores",
            missing,
        )
        print(claim)
        return claim

    @property
    def share_text(self) -> str:
        """The serial share with its interval, for a person."""
        ends = ", ".join(_percent(end) for end in (self.low, self.high))
        return f"{_percent(self.share)} [{ends}]"

    @property
    def sentences(self) -> list[str]:
        """What the points say about the law, in words."""
        return [*self._verdict(), *self._beyond()]

    def _verdict(self) -> list[str]:
        if not self.fitted:
            return [f"no law is fitted. {self.missing}"]
        if not self.describes:
            no = f"{self.law}'s law does not describe these points"
            return [f"{no}: no serial share fits all intervals", *self._why_not()]
        most = max(p.workers for p in self.fitted)
        said = [f"{self.law}'s law, up to {most} {self.unit}: a serial share of {self.share_text}"]
        if self.high >= 1 and self.low <= 0:
            said = [f"{self.law}'s law: these points leave every serial share open"]
        elif self.law == AMDAHL:
            said.append(self._limit())
        if len(self.fitted) == 1:
            said.append("one point fits every law: it gives the share and does not test the law")
        if self.held:
            said.append(self.held)
        return said

    def _limit(self) -> str:
        """What the serial share means for any number of workers."""
        limits = [_limit_text(share) for share in (self.share, self.high, self.low)]
        return (
            f"if the law holds beyond these points, any number of {self.unit} stays below 1 / "
            f"share: {limits[0]} [{limits[1]}, {limits[2]}]"
        )

    def _why_not(self) -> list[str]:
        shares = [self.share_of(p) for p in self.fitted]
        if any(high < 0 for _, _, high in shares):
            return ["more than ideal: smaller pieces may fit into caches that the whole does not"]
        first, last = shares[0], shares[-1]
        text = ", ".join(
            f"{_percent(middle)} at {p.workers}"
            for p, (_, middle, _) in zip(self.fitted, shares, strict=True)
        )
        if last[0] > first[2]:
            text += (
                f": it grows, so more {self.unit} bring costs that the law does not know, such as "
                "memory bandwidth that all share, a quota, or two threads of one core"
            )
        return [f"the serial share that each point would have by itself: {text}"]

    def _beyond(self) -> list[str]:
        left = [p for p in self.points if p not in self.fitted]
        return [
            f"{p.workers} {self.unit} on {cores_text(self.cores or 0)} reach "
            f"{format_ratio(p.speedup)} {p.interval_text}; the laws give each a core of its own, "
            "so this is not fitted"
            for p in left
        ]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        kind = "speed-up" if self.law == AMDAHL else "scaled speed-up"
        head = [self.unit, kind, "interval", "efficiency", "serial share of this point alone"]
        rows = [["1", "1x", "", "100 %", ""]]
        for p in self.points:
            share = _percent(self.share_of(p)[1]) if p in self.fitted else "not fitted"
            known = [format_ratio(p.speedup), p.interval_text, _percent(p.efficiency)]
            rows.append([str(p.workers), *known, share])
        return head, rows

    def to_frame(self) -> pd.DataFrame:
        """One row a point.

        Columns: workers, speedup, speedup_low, speedup_high, efficiency, serial_share (of this
        point alone), fitted.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "workers": p.workers,
                "speedup": p.speedup,
                "speedup_low": p.low,
                "speedup_high": p.high,
                "efficiency": p.efficiency,
                "serial_share": self.share_of(p)[1],
                "fitted": p in self.fitted,
            }
            for p in self.points
        )

    def plot(self) -> Figure:
        """The points with their intervals, the ideal, and the fitted law with its band."""
        return figure(self)

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return f"Scaling({self.law}, {self.unit})"

    def __str__(self) -> str:
        from labkit import tables

        return "\n".join([tables.text_table(*self._table()), *self.sentences])

    def _repr_html_(self) -> str:
        from labkit import tables

        return tables.result_html(*self._table(), _as_sentences(self.sentences))


def _as_sentences(lines: list[str]) -> str:
    return " ".join(
        f"{line[0].upper()}{line[1:]}{'' if line.endswith('.') else '.'}" for line in lines
    )


def _limit_text(share: float) -> str:
    return format_ratio(1 / share) if share > 0 else "no limit"


def cores_text(cores: float) -> str:
    """A number of cores in words."""
    return f"{cores:.3g} core{'' if cores == 1 else 's'}"


def _percent(share: float) -> str:
    return format_share(float(f"{share:.3g}"))


Measured = "Comparison | Mapping[int, Ratio | tuple[float, float, float]]"


def strong(
    measured: Comparison | Mapping[int, Ratio | tuple[float, float, float]],
    *,
    cores: float | None = None,
    unit: str = "",
) -> Scaling:
    """Strong scaling: the work stays the same, and Amdahl's law is held against T1/Tp.

    Args:
        measured: a comparison whose variants are "1 thread", "2 threads", ...; or, by number of
            workers, a `labkit.Ratio` to one worker or (low, middle, high) of T1/Tp.
        cores: that may really be used; None: those of the comparison's machine.
        unit: what the workers are; taken from the variants' names if left out.

    Raises:
        ValueError: a variant without a number, a baseline of another number than 1, or numbers
            that are no interval.

    >>> strong({2: (1.9, 1.95, 1.99)}, cores=2)
    Scaling(Amdahl, workers)
    """
    return _scaling(AMDAHL, measured, cores, unit)


def weak(
    measured: Comparison | Mapping[int, Ratio | tuple[float, float, float]],
    *,
    cores: float | None = None,
    unit: str = "",
) -> Scaling:
    """Weak scaling: the work grows with the workers, and Gustafson's law is held against p T1/Tp.

    Args:
        measured: as in `strong`, where p workers do p times the work of one.
        cores: as in `strong`, and so is ``unit``.
        unit: what the workers are.

    Raises:
        ValueError: as `strong`.

    >>> found = weak({2: (0.93, 0.95, 0.97), 4: (0.89, 0.92, 0.95)})
    >>> [f"{point.speedup:.2f}" for point in found.points]
    ['1.90', '3.68']
    >>> f"{found.low:.2f} to {found.high:.2f}"
    '0.07 to 0.14'
    """
    return _scaling(GUSTAFSON, measured, cores, unit)


def _scaling(
    law: str,
    measured: Comparison | Mapping[int, Ratio | tuple[float, float, float]],
    cores: float | None,
    unit: str,
) -> Scaling:
    why = ""
    if isinstance(measured, Comparison):
        numbers = {name: _workers_of(name) for name in measured.names}
        if numbers[measured.baseline] != 1:
            raise ValueError(f"the baseline is {measured.baseline!r}; it has to be one worker")
        if cores is None and measured.machine is not None:
            cores = measured.machine.usable_cores
        unit = unit or measured.names[-1].partition(" ")[2]
        if measured.machine is not None:
            why = held(measured, min(max(numbers.values()), measured.machine.usable_threads))
        if cores is not None and max(numbers.values()) <= cores:
            # With a core for each, none of them would have to wait for one.
            waits = [c.text for c in measured.caveats if c.kind == "busy cores"]
            why = why or "".join(f"{text[0].upper()}{text[1:]}." for text in waits)
        found = {numbers[name]: ratio for name, ratio in measured.ratios.items() if ratio.rounds}
        measured = found
    points = []
    for workers in sorted(measured):
        known = measured[workers]
        interval = known if isinstance(known, tuple) else (known.low, known.speedup, known.high)
        low, middle, high = interval
        if workers == 1:
            continue
        if workers < 1 or not 0 <= low <= middle <= high or not 0 < middle < math.inf:
            raise ValueError(
                f"{workers}: {interval}: give a number of workers, at least 1, and low <= middle "
                "<= high of T1/Tp, such as 2: (1.8, 1.9, 2.0)"
            )
        times = workers if law == GUSTAFSON else 1
        points.append(Point(workers, times * middle, times * low, times * high))
    return Scaling(law, tuple(points), cores, unit or "workers", why)


def _workers_of(name: str) -> int:
    found = _NUMBER.match(name)
    if not found or int(found[0]) < 1:
        raise ValueError(f"variant {name!r} does not say how many: name it such as '2 threads'")
    return int(found[0])


def figure(*scalings: Scaling) -> Figure:
    """One panel for each, side by side: points, intervals, the ideal, the law with its band.

    The law is drawn as far as it was fitted, and no further.
    """
    from labkit import law_plots

    return law_plots.laws_figure(scalings)
