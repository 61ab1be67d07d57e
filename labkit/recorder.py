"""From the events of a measurement to its result."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from labkit import caveats, statistics
from labkit.machines import machine, throttling
from labkit.peaks import Peaks
from labkit.results import Comparison
from labkit.timing import Calibrated, Garbage, Metrics, Paged, Retaken, Rounds, Traced, Waited
from labkit.trials import Failure, NoiseFloor, PeakMemory, Trial
from labkit.variants import check_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labkit.traces import Trace
    from labkit.variants import Variant

# Above this, identical code differs so much from round to round that a reader should know.
_NOISY = 0.05
# A drift of the absolute times above this is worth a word; ratios do not feel it.
_DRIFT = 0.1
# Threads of a run on a quiet machine wait for a core for less than 1 % of it.
_WAITED = 0.1
# An evaluation that is given a megabyte in four kilobytes at a time, and feels it.
_PAGE_FAULTS = 256
_SYSTEM_SHARE = 0.15


@dataclass(frozen=True)
class Settings:
    """How a comparison is measured; see `labkit.compare`."""

    budget_s: float = 5.0
    confidence: float = 0.95
    resolution: float = 0.02
    memory: bool = False
    trace: bool = True
    device: str | None = None
    threads: int | None = None
    deadline_s: float = 60.0
    at_once: int = 1

    def __post_init__(self) -> None:
        for word, allowed, holds in (
            ("budget_s", "a number of seconds above 0, such as 5.0", _positive(self.budget_s)),
            ("deadline_s", "a number of seconds above 0", _positive(self.deadline_s)),
            (
                "confidence",
                "a probability from 0.5 to 0.9999, such as 0.95",
                _number(self.confidence) and 0.5 <= self.confidence <= 0.9999,
            ),
            (
                "resolution",
                "a share above 0 and up to 1, such as 0.02 for 2 %",
                _positive(self.resolution) and self.resolution <= 1,
            ),
            (
                "threads",
                "a whole number of at least 1, or None",
                self.threads is None or (type(self.threads) is int and self.threads >= 1),
            ),
            (
                "at_once",
                "a whole number of at least 1",
                type(self.at_once) is int and self.at_once >= 1,
            ),
        ):
            if not holds:
                raise ValueError(f"{word}={getattr(self, word)!r}: give {allowed}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: object) -> bool:
    return _number(value) and value > 0  # type: ignore[operator]


class Recorder:
    """Keeps what events say, and gives the `Comparison` so far at any moment.

    Args:
        variants: checked variants by name; the first is the baseline.
        settings: how they are measured.
        about: fields of the `Comparison` that are only passed on (parameters, title,
            prediction).
        threads: how many threads numerical libraries get; None: left alone.
    """

    def __init__(
        self,
        variants: Mapping[str, Variant],
        settings: Settings,
        *,
        about: Mapping[str, Any] | None = None,
        threads: int | None = None,
    ) -> None:
        self.settings = settings
        self.ended = "running"
        self.failures: dict[str, Failure] = {}
        self.memory: dict[str, PeakMemory] = {}
        self.noise_floor: NoiseFloor | None = None
        self._about = dict(about or {})
        self._machine = machine()
        self._peaks: tuple[Peaks, ...] = ()
        self._trials = {
            name: Trial(
                name,
                (),
                (),
                device=settings.device or "cpu",
                threads=threads,
                flops=v.flops,
                bytes_moved=v.bytes_moved,
                metrics={} if callable(v.metrics) else check_metrics(v.metrics),
            )
            for name, v in variants.items()
        }
        self._times: dict[str, list[float]] = {name: [] for name in variants}
        self._rounds: dict[str, list[int]] = {name: [] for name in variants}
        self._began = time.monotonic()
        self._ended_after_s: float | None = None
        self._began_utc = datetime.now(UTC).isoformat(timespec="seconds")
        self._throttling = throttling()
        self._waited_share = 0.0
        self._paged: dict[str, Paged] = {}
        self._retaken = 0
        self._held_cores: float | None = None

    @property
    def next_round(self) -> int:
        """The number of the first round that nobody has taken yet."""
        return 1 + max((r[-1] for r in self._rounds.values() if r), default=-1)

    @property
    def traces(self) -> list[Trace]:
        """Of the variants that were traced."""
        return [t.trace for t in self._trials.values() if t.trace is not None]

    def take(self, event: object) -> None:
        """Keep what an event says; events that say nothing about the result are let pass."""
        match event:
            case Calibrated():
                self._trials[event.variant] = replace(
                    self._trials[event.variant],
                    evaluations_per_sample=event.evaluations_per_sample,
                    overhead_s=event.overhead_s,
                    device=event.device,
                    clock=event.clock,
                )
            case Waited(share, held_cores):
                self._waited_share = share
                self._held_cores = held_cores
            case Metrics(variant, numbers):
                self._trials[variant] = replace(self._trials[variant], metrics=numbers)
            case Rounds(rounds):
                for number, times in rounds:
                    for name, seconds in times.items():
                        self._times[name].append(seconds)
                        self._rounds[name].append(number)
            case NoiseFloor():
                self.noise_floor = event
            case Garbage(variant, per_evaluation_s):
                self._trials[variant] = replace(self._trials[variant], collector_s=per_evaluation_s)
            case Paged(variant):
                self._paged[variant] = event
            case Retaken(samples):
                self._retaken += samples
            case Traced(variant, trace):
                self._trials[variant] = replace(self._trials[variant], trace=trace)
            case Peaks():
                self._peaks = (*self._peaks, event)
            case Failure():
                self.failures[event.variant] = event
            case (str() as name, PeakMemory() as peak):
                self.memory[name] = peak

    def end(self, reason: str) -> None:
        """Nothing more will come."""
        self.ended = reason
        self._ended_after_s = time.monotonic() - self._began

    @property
    def comparison(self) -> Comparison:
        """The result so far."""
        duration_s = self._ended_after_s
        found = Comparison(
            trials={
                name: replace(
                    trial, times_s=tuple(self._times[name]), rounds=tuple(self._rounds[name])
                )
                for name, trial in self._trials.items()
            },
            failures=dict(self.failures),
            memory=dict(self.memory),
            confidence=self.settings.confidence,
            resolution=self.settings.resolution,
            budget_s=self.settings.budget_s,
            noise_floor=self.noise_floor,
            ended=self.ended,
            machine=self._machine,
            started_utc=self._began_utc,
            duration_s=time.monotonic() - self._began if duration_s is None else duration_s,
            peaks=self._peaks,
            held_cores=self._held_cores,
            **self._about,
        )
        return replace(found, caveats=tuple(self._caveats(found)))

    def _caveats(self, found: Comparison) -> list[caveats.Caveat]:
        return [
            *self._noise_caveats(found),
            *self._interval_caveats(found),
            *self._time_caveats(found),
        ]

    def _noise_caveats(self, found: Comparison) -> list[caveats.Caveat]:
        floor = found.noise_floor
        if floor is None:
            return []
        result = [caveats.noise(floor.spread)] if floor.spread > _NOISY else []
        reachable = floor.reachable_resolution
        answered = all(ratio.answered for ratio in found.ratios.values())
        if math.isfinite(reachable) and reachable > found.resolution and not answered:
            needed_s = found.budget_s * (reachable / found.resolution) ** 2
            result.append(caveats.resolution_out_of_reach(found.resolution, reachable, needed_s))
        return result

    def _interval_caveats(self, found: Comparison) -> list[caveats.Caveat]:
        if found.ended == "stopped":
            return [caveats.stopped_early(found.rounds)]
        if found.ended != "budget":
            return []
        result = []
        share = (1 - found.confidence) / max(1, len(found.names) - 1)
        needed = statistics.minimum_rounds(share)
        round_s = sum(
            t.median_s * t.evaluations_per_sample for t in found.trials.values() if t.times_s
        )
        for name, ratio in found.ratios.items():
            if ratio.failure or ratio.verdict != "inconclusive":
                continue
            if ratio.rounds < needed:
                # Twice the least: the first finite interval is wide.
                needed_s = max(found.budget_s, 2 * needed * round_s)
                result.append(caveats.too_few_rounds(name, ratio.rounds, needed, needed_s))
            else:
                width = ratio.high - ratio.low
                result.append(caveats.budget_spent(name, ratio.rounds, width, found.resolution))
        return result

    def _time_caveats(self, found: Comparison) -> list[caveats.Caveat]:
        result = []
        if self.settings.at_once > 1:
            result.append(caveats.side_by_side(self.settings.at_once))
        for name, trial in found.trials.items():
            share = trial.collector_s / trial.median_s
            if share > 0.01:
                result.append(caveats.garbage(name, trial.collector_s, share))
        for name, paged in self._paged.items():
            if paged.page_faults > _PAGE_FAULTS and paged.system_share > _SYSTEM_SHARE:
                result.append(caveats.page_faults(name, paged.page_faults, paged.system_share))
        if self._waited_share > _WAITED:
            result.append(caveats.waited(self._waited_share))
        times = found.trials[found.baseline].times_s
        if len(times) >= 40:
            half = len(times) // 2
            change = abs(median(times[half:]) / median(times[:half]) - 1)
            if change > _DRIFT:
                result.append(caveats.drift(found.baseline, change))
        now = throttling() if self._throttling is not None else None
        if now is not None and self._throttling is not None:
            lost_s = now.throttled_s - self._throttling.throttled_s
            share = lost_s / max(1e-3, found.duration_s)
            if share > 0.01:
                result.append(caveats.throttled(share, self._retaken))
        return result
