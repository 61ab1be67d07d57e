"""What was measured of one variant: frozen records that keep raw samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from labkit import statistics
from labkit.caveats import Caveat
from labkit.traces import Trace
from labkit.units import format_bytes, format_share, format_time

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Failure:
    """Why a variant has no complete result.

    Attributes:
        variant: its name.
        stage: what it was doing: "load", "setup", "warm-up", "measuring" or "memory".
        kind: "raised", "killed", "hung", or "does not apply" to this model or machine.
        message: one line: the exception, the signal, or the deadline.
        details: the traceback, or the last lines that the process wrote; may be empty.
    """

    variant: str
    stage: str
    kind: str
    message: str
    details: str = ""

    @property
    def reason(self) -> str:
        """What happened, without the variant's name."""
        if self.kind == "does not apply":
            return f"{self.kind}: {self.message}"
        return f"{self.kind} during {self.stage}: {self.message}"

    def __str__(self) -> str:
        return f"{self.variant} {self.reason}"


@dataclass(frozen=True)
class PeakMemory:
    """The largest amount of memory that one evaluation needed.

    Attributes:
        peak_bytes: above what the process held just before the evaluation.
        before_bytes: what the process held just before it.
        device: "cpu" or the accelerator whose memory was measured.
        method: where the number comes from.
        caveats: what weakens it.
    """

    peak_bytes: int
    before_bytes: int
    device: str
    method: str
    caveats: tuple[Caveat, ...] = ()

    def __str__(self) -> str:
        return f"{format_bytes(self.peak_bytes)} on {self.device} ({self.method})"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "peak_bytes": self.peak_bytes,
            "before_bytes": self.before_bytes,
            "device": self.device,
            "method": self.method,
            "caveats": [c.to_dict() for c in self.caveats],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PeakMemory:
        """Read what `to_dict` wrote."""
        return cls(**{**data, "caveats": tuple(Caveat(**c) for c in data["caveats"])})


@dataclass(frozen=True)
class Trial:
    """The raw samples of one variant, with how they were taken.

    Attributes:
        name: the variant's name.
        times_s: one sample a round: seconds per evaluation.
        rounds: the number of the round that each sample belongs to.
        evaluations_per_sample: how many evaluations a sample's block holds.
        device: where the work ran.
        clock: which clock was read.
        threads: how many threads numerical libraries were given; None if left alone.
        overhead_s: the measuring loop's own share of one evaluation, in seconds, included in
            the times (one turn of an empty loop).
        collector_s: what Python's garbage collector takes, per evaluation, for cycles that the
            evaluation leaves behind; not in the times.
        cache: the state of the caches before an evaluation: "warm" (the one before it ran the
            same code on the same data).
        flops, bytes_moved: per evaluation, as the variant states them.
        metrics: numbers that the variant brings along, such as its accuracy.
        trace: what one evaluation did inside torch, if that was looked at.

    >>> trial = Trial("sum", times_s=(2e-6, 1e-6, 3e-6), rounds=(0, 1, 2))
    >>> trial.median_s, trial.fastest_s
    (2e-06, 1e-06)
    """

    name: str
    times_s: tuple[float, ...]
    rounds: tuple[int, ...]
    evaluations_per_sample: int = 1
    device: str = "cpu"
    clock: str = "time.perf_counter"
    threads: int | None = None
    overhead_s: float = 0.0
    collector_s: float = 0.0
    cache: str = "warm"
    flops: float | None = None
    bytes_moved: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()
    trace: Trace | None = None

    def __post_init__(self) -> None:
        if len(self.times_s) != len(self.rounds):
            raise ValueError(
                f"{self.name!r}: {len(self.times_s)} times for {len(self.rounds)} rounds; "
                "give one round number for each time"
            )

    @property
    def cost(self) -> tuple[float | None, float | None]:
        """FLOPs and bytes of one evaluation: as stated, else as traced; None where unknown."""
        trace = self.trace
        flops, moved = self.flops, self.bytes_moved
        if trace is not None:
            flops = flops or trace.flops or None
            # A compiler fuses operators: what they would move one by one is not what is moved.
            moved = moved or (None if trace.graphs else trace.bytes_moved or None)
        return flops, moved

    @property
    def median_s(self) -> float:
        """The median sample, seconds per evaluation; NaN without samples."""
        return median(self.times_s) if self.times_s else math.nan

    @property
    def fastest_s(self) -> float:
        """The fastest sample, seconds per evaluation; NaN without samples."""
        return min(self.times_s, default=math.nan)

    @property
    def spread_s(self) -> float:
        """The robust standard deviation of the samples, seconds per evaluation."""
        return statistics.spread(self.times_s) if self.times_s else math.nan

    def __repr__(self) -> str:
        return f"Trial({self.name!r}, {len(self.times_s)} samples)"

    def __str__(self) -> str:
        return (
            f"{self.name}: {format_time(self.median_s)} per evaluation (median of "
            f"{len(self.times_s)} samples of {self.evaluations_per_sample}, fastest "
            f"{format_time(self.fastest_s)}) on {self.device}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "name": self.name,
            "times_s": list(self.times_s),
            "rounds": list(self.rounds),
            "evaluations_per_sample": self.evaluations_per_sample,
            "device": self.device,
            "clock": self.clock,
            "threads": self.threads,
            "overhead_s": self.overhead_s,
            "collector_s": self.collector_s,
            "cache": self.cache,
            "flops": self.flops,
            "bytes_moved": self.bytes_moved,
            "metrics": dict(self.metrics),
            "caveats": [c.to_dict() for c in self.caveats],
            "trace": self.trace.to_dict() if self.trace else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """Read what `to_dict` wrote."""
        return cls(
            **{
                **data,
                "times_s": tuple(data["times_s"]),
                "rounds": tuple(data["rounds"]),
                "caveats": tuple(Caveat(**c) for c in data["caveats"]),
                "trace": Trace.from_dict(data["trace"]) if data.get("trace") else None,
            }
        )


@dataclass(frozen=True)
class NoiseFloor:
    """What identical code against itself shows at this moment.

    Attributes:
        log_ratios: the baseline against itself, one number a round of the preflight.
        reachable_resolution: the width of interval that the budget allows at this noise.
        duration_s: how long the preflight took.
    """

    log_ratios: tuple[float, ...]
    reachable_resolution: float
    duration_s: float

    @property
    def spread(self) -> float:
        """By what share identical code differs from one round to the next."""
        return statistics.spread(self.log_ratios) if self.log_ratios else math.nan

    def __str__(self) -> str:
        return (
            f"identical code differs by {format_share(self.spread)} from round to round; "
            f"this budget can resolve about {format_share(self.reachable_resolution)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "log_ratios": list(self.log_ratios),
            "reachable_resolution": self.reachable_resolution,
            "duration_s": self.duration_s,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NoiseFloor:
        """Read what `to_dict` wrote."""
        return cls(**{**data, "log_ratios": tuple(data["log_ratios"])})
