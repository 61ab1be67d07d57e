"""What a comparison returns: a frozen record that keeps raw samples and derives the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from labkit import statistics
from labkit.caveats import Caveat
from labkit.claims import Claim, check_claim
from labkit.files import ENVELOPE, SCHEMA_VERSION, save_new, seal, unseal
from labkit.machines import Machine
from labkit.peaks import Peaks
from labkit.statistics import Verdict
from labkit.trials import Failure, NoiseFloor, PeakMemory, Trial
from labkit.units import format_ratio, format_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from matplotlib.figure import Figure

    from labkit.explaining import Explanation


@dataclass(frozen=True)
class Ratio:
    """How many times faster a variant is than the baseline.

    Attributes:
        name, baseline: the two variants.
        log_ratios: one number a round: log(time of the baseline / time of the variant).
        confidence: probability that the interval never misses the true median, however often
            somebody looks.
        resolution: differences below this share do not matter.
        failure: why the variant has no complete result, if it has none.

    >>> ratio = Ratio("int8", "float32", log_ratios=(0.69, 0.70, 0.68) * 20)
    >>> print(ratio)
    int8 is 1.99x faster than float32 [1.97x, 2.01x]
    """

    name: str
    baseline: str
    log_ratios: tuple[float, ...]
    confidence: float = 0.95
    resolution: float = 0.02
    failure: Failure | None = None

    @property
    def rounds(self) -> int:
        """In which both took part."""
        return len(self.log_ratios)

    @property
    def speedup(self) -> float:
        """Median over rounds of the time of the baseline over that of the variant."""
        return math.exp(median(self.log_ratios)) if self.log_ratios else math.nan

    @cached_property
    def _interval(self) -> tuple[float, float]:
        low, high = statistics.interval(self.log_ratios, alpha=1 - self.confidence)
        return math.exp(low), math.exp(high)

    @property
    def low(self) -> float:
        """Lower end of the interval; 0 while there are too few rounds."""
        return self._interval[0]

    @property
    def high(self) -> float:
        """Upper end of the interval; infinite while there are too few rounds."""
        return self._interval[1]

    @property
    def verdict(self) -> Verdict:
        """What the interval says."""
        return statistics.decide(self.low, self.high, resolution=self.resolution)

    @property
    def answered(self) -> bool:
        """Whether more rounds are not needed."""
        return statistics.answered(self.low, self.high, resolution=self.resolution)

    def below(self, threshold: float) -> bool | None:
        """Whether the speed-up is below a threshold; None where the interval does not tell.

        For `labkit.check`: what is not known must not count as refuted.

        >>> ratio = Ratio("int8", "float32", log_ratios=(0.69, 0.70, 0.68) * 20)
        >>> ratio.below(2.5), ratio.below(1.5), ratio.below(1.99)
        (True, False, None)
        """
        if self.high < threshold:
            return True
        return False if self.low >= threshold else None

    def above(self, threshold: float) -> bool | None:
        """Whether the speed-up is at least a threshold; None where the interval does not tell."""
        lower = self.below(threshold)
        return None if lower is None else not lower

    @property
    def interval_text(self) -> str:
        """The interval for a person: ``[1.97x, 2.01x]``."""
        if not math.isfinite(self.high):
            return "[not yet known]"
        return f"[{format_ratio(self.low)}, {format_ratio(self.high)}]"

    def __str__(self) -> str:
        if self.failure and not self.log_ratios:
            return f"{self.name}: no result ({self.failure})"
        against = f"{self.baseline} {self.interval_text}"
        match self.verdict:
            case Verdict.FASTER:
                text = f"{self.name} is {format_ratio(self.speedup)} faster than {against}"
            case Verdict.SLOWER:
                # Turned round with the number it belongs to: "1.03x slower [1.02x, 1.04x]".
                turned = f"[{format_ratio(1 / self.high)}, {format_ratio(1 / self.low)}]"
                times = format_ratio(1 / self.speedup)
                text = f"{self.name} is {times} slower than {self.baseline} {turned}"
            case Verdict.SAME:
                share = format_share(self.resolution)
                text = f"{self.name} is the same speed as {against}, within {share}"
            case _:
                text = f"{self.name} against {against}: inconclusive after {self.rounds} rounds"
        return f"{text}; it then failed ({self.failure})" if self.failure else text


@dataclass(frozen=True)
class Comparison:
    """Variants timed against a baseline, round by round.

    ``comparison["int8"]`` is the `Ratio` of a variant; ``comparison.trials["int8"]`` its raw
    samples. The first variant is the baseline.

    Attributes:
        trials: raw samples by name, in the order given.
        failures: variants that raised, were killed or hung; what they had measured is kept.
        memory: peak memory by name, if it was asked for.
        confidence: probability that *all* intervals hold, at every moment of the run.
        resolution: differences below this share do not matter.
        noise_floor: from the preflight; None if it did not get that far.
        ended: "answered", "budget", "stopped" or "failed".
        parameters: of the experiment, if any.
        title: of the experiment, if any.
        prediction: what the reader expected the last variant's speed-up to be, if asked.
        machine: what the results depend on.
        peaks: the rates that the machine reached beside this run, by device and dtype.
        held_cores: that other programs used beside this run, on average; None: not known.
        started_utc: ISO 8601, seconds.
        duration_s: wall time of the whole comparison.
    """

    trials: Mapping[str, Trial]
    failures: Mapping[str, Failure] = field(default_factory=dict)
    memory: Mapping[str, PeakMemory] = field(default_factory=dict)
    confidence: float = 0.95
    resolution: float = 0.02
    budget_s: float = 5.0
    noise_floor: NoiseFloor | None = None
    ended: str = "answered"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    prediction: float | None = None
    machine: Machine | None = None
    started_utc: str = ""
    duration_s: float = math.nan
    caveats: tuple[Caveat, ...] = ()
    peaks: tuple[Peaks, ...] = ()
    held_cores: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All variants, the baseline first."""
        return tuple(self.trials)

    @property
    def baseline(self) -> str:
        """The first variant."""
        return self.names[0]

    @property
    def rounds(self) -> int:
        """Rounds in which the baseline was timed."""
        return len(self.trials[self.baseline].times_s)

    def ratio(self, name: str, baseline: str | None = None) -> Ratio:
        """The ratio of any two variants, from the rounds that both took part in.

        Args:
            name: the variant.
            baseline: what to compare it with; the comparison's own baseline if None.

        Raises:
            KeyError: if there is no such variant.
        """
        base = self.baseline if baseline is None else baseline
        for given in (name, base):
            if given not in self.trials:
                raise KeyError(f"no variant {given!r}; this comparison has {list(self.names)}")
        theirs = dict(zip(self.trials[base].rounds, self.trials[base].times_s, strict=True))
        mine = self.trials[name]
        # All intervals of a comparison hold together (Bonferroni), so that ten variants do not
        # give ten chances of a false verdict.
        share = (1 - self.confidence) / max(1, len(self.trials) - 1)
        return Ratio(
            name,
            base,
            tuple(
                math.log(theirs[r] / t)
                for r, t in zip(mine.rounds, mine.times_s, strict=True)
                if r in theirs
            ),
            confidence=1 - share,
            resolution=self.resolution,
            failure=self.failures.get(name) or self.failures.get(base),
        )

    def __getitem__(self, name: str) -> Ratio:
        return self.ratio(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def ratios(self) -> dict[str, Ratio]:
        """The ratios of all variants but the baseline."""
        return {name: self[name] for name in self.names[1:]}

    @property
    def sentences(self) -> list[str]:
        """The verdicts in words."""
        return [f"{ratio}{self._collected(name)}" for name, ratio in self.ratios.items()]

    def _collected(self, name: str) -> str:
        """What the verdict becomes with the collector's work, where that is not negligible."""
        base, mine = self.trials[self.baseline], self.trials[name]
        if not any(t.times_s and t.collector_s > 0.01 * t.median_s for t in (base, mine)):
            return ""
        total = (base.median_s + base.collector_s) / (mine.median_s + mine.collector_s)
        match self[name].verdict:
            case Verdict.SLOWER if total < 1:
                text = f"{format_ratio(1 / total)} slower"
            case Verdict.FASTER if total > 1:
                text = f"{format_ratio(total)} faster"
            case _:
                text = f"{format_ratio(total)} as fast"
        return f"; with the garbage collector's later work for both it is {text}"

    def to_frame(self) -> pd.DataFrame:
        """One row a variant; units are in the column names.

        Columns: variant, median_s, fastest_s, speedup, speedup_low, speedup_high, verdict,
        rounds, evaluations_per_sample, peak_bytes (if measured), the variants' own metrics,
        and failure.
        """
        import pandas as pd

        rows = []
        for name, trial in self.trials.items():
            ratio = self[name]
            is_baseline = name == self.baseline
            failure = self.failures.get(name)
            row: dict[str, Any] = {
                "variant": name,
                "median_s": trial.median_s,
                "fastest_s": trial.fastest_s,
                "speedup": 1.0 if is_baseline else ratio.speedup,
                "speedup_low": 1.0 if is_baseline else ratio.low,
                "speedup_high": 1.0 if is_baseline else ratio.high,
                "verdict": "baseline" if is_baseline else ratio.verdict.value,
                "rounds": len(trial.times_s),
                "evaluations_per_sample": trial.evaluations_per_sample,
            }
            if self.memory:
                peak = self.memory.get(name)
                row["peak_bytes"] = peak.peak_bytes if peak else math.nan
            row.update(trial.metrics)
            if self.failures:
                row["failure"] = str(failure) if failure else ""
            rows.append(row)
        return pd.DataFrame(rows)

    def sample_rows(self) -> list[list[Any]]:
        """All raw samples, one row each below a row of names: variant, round, time_s."""
        return [
            ["variant", "round", "time_s"],
            *(
                [trial.name, number, seconds]
                for trial in self.trials.values()
                for number, seconds in zip(trial.rounds, trial.times_s, strict=True)
            ),
        ]

    def samples_frame(self) -> pd.DataFrame:
        """One row a sample: variant, round, time_s (seconds per evaluation)."""
        import pandas as pd

        head, *rows = self.sample_rows()
        return pd.DataFrame(rows, columns=head)

    def plot(self) -> Figure:
        """The intervals of the speed-ups and the samples behind them."""
        from labkit import plots

        return plots.comparison_figure(self)

    def frontier(self, quality: str = "accuracy") -> tuple[str, ...]:
        """The variants that no other one beats in time and quality, the fastest first.

        Args:
            quality: a metric of the variants; more is better.
        """
        from labkit import pareto

        return pareto.frontier(self, quality)

    def pareto(self, quality: str = "accuracy", size: str = "size_bytes") -> Figure:
        """Time against quality, the area as the size, the frontier marked.

        Args:
            quality: a metric of the variants; more is better.
            size: a metric of the variants, in bytes.

        Raises:
            ValueError: fewer than two variants have a time and that quality, and none failed.
        """
        from labkit import plots

        return plots.pareto_figure(self, quality, size)

    def explain(self, name: str | None = None) -> Explanation:
        """What limits a variant: the limit that binds, the evidence, the next thing to try.

        Only measured facts count: the samples, one evaluation taken apart into torch's operators
        (after the timing, see `labkit.tracing`), and the rates that this machine reached. Where
        they do not tell, the answer says so.

        Args:
            name: the variant; None: the last.

        Raises:
            KeyError: no such variant.

        >>> import torch
        >>> from labkit import compare
        >>> x = torch.ones(2)
        >>> def add():
        ...     for _ in range(100):
        ...         torch.add(x, 1)
        >>> def multiply():
        ...     for _ in range(100):
        ...         torch.mul(x, 2)
        >>> found = compare({"add": add, "multiply": multiply}, resolution=0.2).explain()
        >>> found.limit in ("dispatch overhead", "")  # the second where other programs disturb
        True
        """
        from labkit import explaining

        return explaining.explain(self, name)

    def claim(self, name: str, **terms: Any) -> Claim:
        """Print one line that says whether a sentence about this result holds.

        Args:
            name: the variant that the sentence is about.
            **terms: ``faster_than``, ``slower_than``, ``same_as`` or ``less_memory_than``: the
                other variant; ``by``: how many times at least (1 if left out); ``within``:
                for same_as, the share (the resolution if left out); ``needs``: what the
                machine must have for the claim to have a meaning, such as "vnni".

        Returns:
            The `Claim`, with ``.state``: CONFIRMED, REFUTED or INCONCLUSIVE, or NOT HERE where
            the machine lacks what it needs.

        Raises:
            KeyError: no such variant.
            ValueError: terms that do not make a sentence.
        """
        claim = check_claim(self, name, **terms)
        print(claim)
        return claim

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "comparison",
            "trials": [t.to_dict() for t in self.trials.values()],
            "failures": [vars(f) for f in self.failures.values()],
            "memory": {name: m.to_dict() for name, m in self.memory.items()},
            "confidence": self.confidence,
            "resolution": self.resolution,
            "budget_s": self.budget_s,
            "noise_floor": self.noise_floor.to_dict() if self.noise_floor else None,
            "ended": self.ended,
            "parameters": dict(self.parameters),
            "title": self.title,
            "prediction": self.prediction,
            "machine": self.machine.to_dict() if self.machine else None,
            "started_utc": self.started_utc,
            "duration_s": self.duration_s,
            "caveats": [c.to_dict() for c in self.caveats],
            "peaks": [p.to_dict() for p in self.peaks],
            "held_cores": self.held_cores,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: if it is not a comparison, or of a newer version of labkit.
        """
        if data.get("kind") != "comparison":
            raise ValueError(f"kind is {data.get('kind')!r}: not a comparison saved by labkit")
        if data.get("schema_version", 0) > SCHEMA_VERSION:
            raise ValueError(
                f"schema_version is {data['schema_version']}, this labkit reads up to "
                f"{SCHEMA_VERSION}: update labkit"
            )
        rest = {k: v for k, v in data.items() if k not in ENVELOPE}
        rest["trials"] = {t["name"]: Trial.from_dict(t) for t in data["trials"]}
        rest["failures"] = {f["variant"]: Failure(**f) for f in data["failures"]}
        rest["memory"] = {n: PeakMemory.from_dict(m) for n, m in data["memory"].items()}
        if data["noise_floor"]:
            rest["noise_floor"] = NoiseFloor.from_dict(data["noise_floor"])
        if data["machine"]:
            rest["machine"] = Machine.from_dict(data["machine"])
        rest["caveats"] = tuple(Caveat(**c) for c in data["caveats"])
        rest["peaks"] = tuple(Peaks.from_dict(p) for p in data.get("peaks", ()))
        return cls(**rest)

    def to_json(self) -> str:
        """With all raw samples and a checksum, as `save` writes it."""
        return seal(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is cut off, was changed, is of a newer version, or no comparison.
        """
        return cls.from_dict(unseal(text))

    def save(self, path: str | Path | None = None, *, person: str | None = None) -> Path:
        """Keep the comparison with its raw samples as JSON, written whole or not at all.

        It says nothing of the host's name, of paths, or of who measured, unless that is given.

        Args:
            path: of the new file; a folder: a name that nobody else uses is made up; None: so
                in the folder that the environment variable LABKIT_RECORDS names, or "records",
                which is made if it is missing.
            person: who measured; None: what the environment variable LABKIT_NAME says, if it
                is set.

        Returns:
            Where it is; `labkit.history` reads a folder.

        Raises:
            FileExistsError: results are never overwritten.
            FileNotFoundError: there is no such folder.
            OSError: the disk is full or the folder must not be written to; nothing is left.
        """
        return save_new(self.to_dict(), path, person=person)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read a comparison that `save` wrote; raises as `from_json`, and OSError."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return f"Comparison({', '.join(self.names)})"

    def __str__(self) -> str:
        from labkit import tables

        return tables.as_text(self)

    def _repr_html_(self) -> str:
        from labkit import tables

        return tables.as_html(self)
