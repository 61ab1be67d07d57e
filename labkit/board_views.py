"""What a class says to one question: the machines, the guesses, the facts; in words and tables.

Speed-ups of different machines stand beside each other, each with its own interval: they are never
pooled, and seconds of different machines are never compared.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit import tables
from labkit.board_facts import Split, splits_of
from labkit.units import format_bytes, format_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from labkit.figures import Picture
    from labkit.machines import Machine
    from labkit.results import Ratio

# An interval whose ends are farther apart than this hardly judges a guess.
_WIDE = 1.5
_NAMED_AT_MOST = 5
COLUMNS = (
    *("machine", "person", "speedup", "speedup_low", "speedup_high", "verdict", "rounds", "runs"),
    *("caveats", "processor", "isa", "limits", "usable_cores", "threads", "memory_bytes"),
    *("accelerators", "torch_version", "failure", "started_utc", "file"),
)


@dataclass(frozen=True, order=True)
class Question:
    """What several machines answered: two variants of an experiment with all its parameters.

    >>> print(Question("matrix product", "size=256", "float32", "int8"))
    matrix product (size=256): int8 against float32
    """

    experiment: str
    parameters: str
    baseline: str
    variant: str

    @property
    def pair(self) -> str:
        """The two variants."""
        return f"{self.variant} against {self.baseline}"

    @property
    def place(self) -> str:
        """The experiment and its parameters."""
        return f"{self.experiment} ({self.parameters})" if self.parameters else self.experiment

    def __str__(self) -> str:
        return f"{self.place}: {self.pair}"


@dataclass(frozen=True)
class Seat:
    """A machine, and the person who worked on it where they gave a name.

    Records without a name from machines of one kind cannot be told apart: they are one seat.

    Attributes:
        number: in the order of arrival.
        person: empty without a name.
        machine: None where the records do not say.
        shared_name: whether the same name stands on another machine, too.
    """

    number: int
    person: str
    machine: Machine | None
    shared_name: bool = False

    @cached_property
    def place(self) -> tuple[str, str]:
        """Who and where, as of `Run`."""
        return self.person, self.machine.fingerprint if self.machine else ""

    @property
    def neutral(self) -> str:
        """A label without a name."""
        return f"machine {self.number}"

    @property
    def label(self) -> str:
        """The name where there is one."""
        if not self.person:
            return self.neutral
        return f"{self.person} ({self.neutral})" if self.shared_name else self.person


@dataclass(frozen=True)
class Run:
    """One answer to one question: a ratio of one record.

    Attributes:
        file: of the record.
        person: who measured; empty without a name.
        machine: None where the record does not say.
        question: what was asked.
        ratio: with its interval, from rounds on this machine alone.
        prediction: of this ratio, given before the run; None without one.
        caveats: the kinds of those that weaken this ratio.
        threads: that numerical libraries were given; None if left alone.
        started_utc: ISO 8601.
    """

    file: str
    person: str
    machine: Machine | None
    question: Question
    ratio: Ratio
    prediction: float | None
    caveats: tuple[str, ...]
    threads: int | None
    started_utc: str

    @cached_property
    def place(self) -> tuple[str, str]:
        """Who and where: what a seat is found by."""
        return self.person, self.machine.fingerprint if self.machine else ""

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return bool(self.ratio.rounds) and math.isfinite(self.ratio.high) and self.ratio.low > 0


@dataclass(frozen=True)
class Row:
    """One seat's answer: the newest run with an interval, and its other runs, newest first."""

    seat: Seat
    run: Run
    others: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Guess:
    """A prediction held against the interval of the run that followed it.

    The true ratio lies somewhere in the interval, so how far off a guess is lies between
    ``nearest`` and ``farthest``: factors of at least 1, and 1 is right.

    Attributes:
        turn: which of the unnamed guesses of this seat, from 1; 0 where there is one only.

    >>> from labkit.results import Ratio
    >>> ratio = Ratio("b", "a", log_ratios=(0.69, 0.70, 0.68) * 20)
    >>> run = Run("x", "Ada", None, Question("e", "", "a", "b"), ratio, 3.0, (), None, "")
    >>> guess = Guess(Seat(1, "Ada", None), run, 3.0)
    >>> print(guess)
    Ada said 3.00x; b is 1.99x [1.97x, 2.01x]: 1.5 times less than said
    """

    seat: Seat
    run: Run
    predicted: float
    turn: int = 0

    @property
    def label(self) -> str:
        """Of the seat, with the number of the guess where it has several."""
        return f"{self.seat.label}, guess {self.turn}" if self.turn else self.seat.label

    @property
    def inside(self) -> bool:
        """Whether it lies in the interval: the result does not tell it from a right one."""
        return self.run.ratio.low <= self.predicted <= self.run.ratio.high

    @property
    def nearest(self) -> float:
        """The least factor by which it may be off."""
        ratio = self.run.ratio
        return max(1.0, ratio.low / self.predicted, self.predicted / ratio.high)

    @property
    def farthest(self) -> float:
        """The largest factor by which it may be off."""
        ratio = self.run.ratio
        return max(ratio.high / self.predicted, self.predicted / ratio.low)

    @property
    def wide(self) -> bool:
        """Whether the interval is too wide to say much about any guess."""
        return self.run.ratio.high > _WIDE * self.run.ratio.low

    @property
    def judged(self) -> str:
        """What it was worth, in a few words."""
        if self.inside:
            return "in the interval" + (", which is wide" if self.wide else "")
        factor = self.run.ratio.speedup / self.predicted
        times = float(f"{max(factor, 1 / factor):.2g}")
        if times == 1:
            return "just outside the interval"
        return f"{times:g} times {'more' if factor > 1 else 'less'} than said"

    def __str__(self) -> str:
        ratio = self.run.ratio
        seen = f"{ratio.name} is {format_ratio(ratio.speedup)} {ratio.interval_text}"
        return f"{self.label} said {format_ratio(self.predicted)}; {seen}: {self.judged}"


@dataclass(frozen=True, eq=False)
class View:
    """What all machines say to one question.

    Attributes:
        question: the experiment, its parameters, the two variants.
        rows: one for each seat, the largest speed-up first, those without an interval last.
        guesses: the predictions, the closest first.
        unjudged: predictions whose run has no interval.
        elsewhere: how many more machines measured this experiment with other parameters only.
    """

    question: Question
    rows: tuple[Row, ...]
    guesses: tuple[Guess, ...]
    unjudged: tuple[Guess, ...] = ()
    elsewhere: int = 0

    @property
    def known(self) -> tuple[Row, ...]:
        """The rows that have an interval."""
        return tuple(row for row in self.rows if row.run.known)

    @property
    def closest(self) -> tuple[Guess, ...]:
        """The guesses that no other one surely beats, as far as the intervals tell.

        All that lie in the interval of their result are among them: nothing tells them from a
        right one, be the interval narrow or wide.
        """
        best = min((guess.farthest for guess in self.guesses), default=math.inf)
        return tuple(guess for guess in self.guesses if guess.nearest <= best)

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """The facts that divide the machines into two groups whose intervals do not overlap."""
        return splits_of(self.known)

    @property
    def sentences(self) -> list[str]:
        """What the records say, in words: the machines, the guesses, the facts."""
        return [*self.spread_sentences, *self.guess_sentences, *self.fact_sentences]

    @property
    def spread_sentences(self) -> list[str]:
        """The speed-ups of the machines."""
        known = self.known
        said = Counter(row.run.ratio.verdict.value for row in known)
        words = ", ".join(f"{count} {verdict}" for verdict, count in said.most_common())
        lines = [
            f"{self.question}: {count_of(len(self.rows), 'machine')}" + f", {words}" * bool(said)
        ]
        if len(known) > 1:
            first, last = known[0], known[-1]
            lines[0] += (
                f"; from {format_ratio(last.run.ratio.speedup)} ({last.seat.label}) to "
                f"{format_ratio(first.run.ratio.speedup)} ({first.seat.label})"
            )
            low = max(row.run.ratio.low for row in known)
            high = min(row.run.ratio.high for row in known)
            if low <= high:
                lines.append(
                    f"One speed-up fits all {len(known)} intervals (any between "
                    f"{format_ratio(low)} and {format_ratio(high)}): these records do not show "
                    "that the machines differ."
                )
        lines[0] += "."
        without = [row.seat.label for row in self.rows if not row.run.known]
        if without:
            lines.append(f"No interval yet: {listed(without)}.")
        several = [f"{row.seat.label} ({1 + len(row.others)})" for row in self.rows if row.others]
        if several:
            lines.append(f"Several runs, of which the newest counts: {listed(several)}.")
        weak = [f"{r.seat.label} ({', '.join(r.run.caveats)})" for r in known if r.run.caveats]
        if weak:
            lines.append(f"With caveats: {listed(weak)}.")
        if self.elsewhere:
            lines.append(
                f"{count_of(self.elsewhere, 'more machine')} measured this experiment with other "
                "parameters only; they are not compared with these."
            )
        return lines

    @property
    def guess_sentences(self) -> list[str]:
        """The predictions against the results."""
        lines = []
        if self.unjudged:
            labels = listed([guess.label for guess in self.unjudged])
            lines.append(f"There is no interval yet to hold these guesses against: {labels}.")
        if not self.guesses:
            return lines or ["Nobody predicted this result."]
        first = self.closest
        named = listed([f"{g.label} ({format_ratio(g.predicted)})" for g in first])
        if len(first) == len(self.guesses) > 1:
            lines.insert(0, f"The intervals do not tell the guesses apart: {named}.")
        elif len(first) > 1:
            lines.insert(0, f"Closest, and not told apart by the intervals: {named}.")
        else:
            lines.insert(0, f"Closest: {named}.")
        wide = [g.label for g in first if g.inside and g.wide]
        if wide:
            lines.append(
                f"The interval of {listed(wide)} is so wide that many guesses would lie in it."
            )
        if len(self.guesses) > 1:
            lines.append(self._all_guesses())
            last = self.guesses[-1]
            if last not in first:
                lines.append(f"Farthest: {last}.")
        unnamed = list(dict.fromkeys(g.seat.label for g in self.guesses if g.turn))
        if unnamed:
            lines.append(
                f"{listed(unnamed)} made several guesses without a name: whether of one person "
                "or of several is not known, nor whether one was made after a result was seen."
            )
        return lines

    def _all_guesses(self) -> str:
        over = sum(g.predicted > g.run.ratio.high for g in self.guesses)
        under = sum(g.predicted < g.run.ratio.low for g in self.guesses)
        inside = len(self.guesses) - over - under
        ordered = sorted(g.predicted for g in self.guesses)
        return (
            f"Of {len(self.guesses)} guesses, {over} said more than was measured, {under} less, "
            f"{inside} {'lies' if inside == 1 else 'lie'} in the interval; they reach from "
            f"{format_ratio(ordered[0])} to {format_ratio(ordered[-1])}."
        )

    @property
    def fact_sentences(self) -> list[str]:
        """Which recorded facts of the machines go with the differences."""
        known = self.known
        if len(known) < 4:
            there = f"there {'is' if len(known) == 1 else 'are'} {len(known)}"
            why = f"that needs four machines with an interval, and {there}"
            return [f"Which facts go with the differences is not looked at: {why}."]
        if not self.splits:
            groups = "two groups whose intervals do not overlap"
            return [f"No recorded fact divides these {len(known)} machines into {groups}."]
        return [
            *(sentence for split in self.splits for sentence in split.sentences),
            "That a fact and a speed-up go together does not say that one causes the other.",
        ]

    def to_frame(self) -> pd.DataFrame:
        """One row a machine, the largest speed-up first.

        Columns: machine (a label), person, speedup, speedup_low, speedup_high, verdict, rounds,
        runs, caveats, processor, isa, limits, usable_cores, threads, memory_bytes, accelerators
        (None: nobody looked), torch_version, failure, started_utc, file.
        """
        import pandas as pd

        rows = [plain_row(row) for row in self.rows]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def guesses_frame(self) -> pd.DataFrame:
        """One row a guess, the closest first.

        Columns: machine (a label), person, predicted, speedup, speedup_low, speedup_high,
        off_at_least and off_at_most (factors), in_interval, closest.
        """
        import pandas as pd

        first = self.closest
        rows = [
            {
                "machine": guess.label,
                "person": guess.seat.person,
                "predicted": guess.predicted,
                "speedup": guess.run.ratio.speedup,
                "speedup_low": guess.run.ratio.low,
                "speedup_high": guess.run.ratio.high,
                "off_at_least": guess.nearest,
                "off_at_most": guess.farthest,
                "in_interval": guess.inside,
                "closest": guess in first,
            }
            for guess in self.guesses
        ]
        names = ("machine", "person", "predicted", "speedup", "speedup_low", "speedup_high")
        others = ("off_at_least", "off_at_most", "in_interval", "closest")
        return pd.DataFrame(rows, columns=[*names, *others])

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The machines for people: a head, and rows of texts."""
        head = ["machine", "speed-up", "interval", "verdict", "runs", "caveats", "cores"]
        head += ["memory", "processor", "limits"]
        rows = []
        for row in self.rows:
            about, here = plain_row(row), row.seat.machine
            ratio = row.run.ratio
            rows.append(
                [
                    row.seat.label,
                    format_ratio(ratio.speedup) if ratio.rounds else "",
                    ratio.interval_text if ratio.rounds else "",
                    about["failure"] or ratio.verdict.value,
                    str(about["runs"]),
                    about["caveats"],
                    f"{here.usable_cores:.3g}" if here else "",
                    format_bytes(here.usable_memory_bytes) if here else "",
                    " + ".join(filter(None, [about["processor"], about["accelerators"]])),
                    about["limits"] or "",
                ]
            )
        return head, rows

    def guesses_table(self) -> tuple[list[str], list[list[str]]]:
        """The guesses for people: a head, and rows of texts."""
        head = ["guess of", "said", "measured", "interval", "measured is", "place"]
        first = self.closest
        rows = [
            [
                guess.label,
                format_ratio(guess.predicted),
                format_ratio(guess.run.ratio.speedup),
                guess.run.ratio.interval_text,
                guess.judged,
                "closest" if guess in first else str(place),
            ]
            for place, guess in enumerate(self.guesses, start=1)
        ]
        return head, rows

    def plot(self) -> Picture:
        """The speed-up of each machine with its interval and verdict."""
        from labkit import board_plots

        return board_plots.forest_figure(self)

    def guesses_plot(self) -> Picture:
        """Each guess beside the interval of its result."""
        from labkit import board_plots

        return board_plots.guesses_figure(self)

    def facts_plot(self) -> Picture:
        """The machines divided by the facts that go with the differences."""
        from labkit import board_plots

        return board_plots.facts_figure(self)

    def __repr__(self) -> str:
        return f"<View of {self.question}>"

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        return tables.result_html(*self.table(), str(self.question))


def plain_row(row: Row) -> dict[str, Any]:
    """The row by the names of `COLUMNS`."""
    here, run, ratio = row.seat.machine, row.run, row.run.ratio
    about: dict[str, Any] = {
        "machine": row.seat.label,
        "person": row.seat.person,
        "speedup": ratio.speedup,
        "speedup_low": ratio.low,
        "speedup_high": ratio.high,
        "verdict": ratio.verdict.value,
        "rounds": ratio.rounds,
        "runs": 1 + len(row.others),
        "caveats": ", ".join(run.caveats),
        "failure": ratio.failure.reason if ratio.failure else "",
        "threads": run.threads,
        "started_utc": run.started_utc,
        "file": run.file,
    }
    blank = dict.fromkeys(name for name in COLUMNS if name not in about)
    if here is None:
        return about | blank
    looked = here.accelerators is not None
    return about | {
        "processor": here.processor,
        "isa": ", ".join(here.isa),
        "limits": ", ".join(f"{name}={value}" for name, value in here.limits.items()),
        "usable_cores": here.usable_cores,
        "memory_bytes": here.usable_memory_bytes,
        "accelerators": ", ".join(a.name for a in here.accelerators or ()) if looked else None,
        "torch_version": here.versions.get("torch"),
    }


def count_of(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> count_of(1, "machine"), count_of(2, "machine")
    ('1 machine', '2 machines')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(labels: Sequence[str]) -> str:
    """A list for people, cut where it gets long.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(labels) > _NAMED_AT_MOST + 1:
        return f"{', '.join(labels[:_NAMED_AT_MOST])} and {len(labels) - _NAMED_AT_MOST} more"
    return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))
