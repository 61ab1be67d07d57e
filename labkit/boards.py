"""The records of a class, side by side: guesses, what each machine gave, what goes with it.

A folder of kept results becomes a `Board`; each question that it holds (an experiment with its
parameters, and two of its variants) becomes a `View`, with sentences and tables. Speed-ups of
different machines stand beside each other, each with its own interval: they are never pooled, and
seconds of different machines are never compared. Nothing here knows of widgets or figures.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import tables
from labkit.board_facts import Split, splits_of
from labkit.errors import LabkitError
from labkit.files import records_folder
from labkit.records import parameters_text, read_folder
from labkit.units import format_bytes, format_ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from labkit.board_panel import BoardPanel
    from labkit.machines import Machine
    from labkit.records import Record
    from labkit.results import Comparison, Ratio

# These say something of absolute times or of memory, nothing of a ratio of times.
_NOT_OF_RATIOS = ("drift", "memory")
# An interval whose ends are farther apart than this hardly judges a guess.
_WIDE = 1.5
_NAMED_AT_MOST = 5
_LONGEST_NAME = 40


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
        seat: who and where; its number in the board.
        question: what was asked.
        ratio: with its interval, from rounds on this machine alone.
        prediction: of this ratio, given before the run; None without one.
        caveats: the kinds of those that weaken this ratio.
        threads: that numerical libraries were given; None if left alone.
        started_utc: ISO 8601.
    """

    file: str
    seat: int
    question: Question
    ratio: Ratio
    prediction: float | None
    caveats: tuple[str, ...]
    threads: int | None
    started_utc: str

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
    >>> run = Run("x", 1, Question("e", "", "a", "b"), ratio, 3.0, (), None, "")
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
            f"{self.question}: {_count(len(self.rows), 'machine')}" + f", {words}" * bool(said)
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
            lines.append(f"No interval yet: {_names(without)}.")
        several = [f"{row.seat.label} ({1 + len(row.others)})" for row in self.rows if row.others]
        if several:
            lines.append(f"Several runs, of which the newest counts: {_names(several)}.")
        weak = [f"{r.seat.label} ({', '.join(r.run.caveats)})" for r in known if r.run.caveats]
        if weak:
            lines.append(f"With caveats: {_names(weak)}.")
        if self.elsewhere:
            lines.append(
                f"{_count(self.elsewhere, 'more machine')} measured this experiment with other "
                "parameters only; they are not compared with these."
            )
        return lines

    @property
    def guess_sentences(self) -> list[str]:
        """The predictions against the results."""
        lines = []
        if self.unjudged:
            labels = _names([guess.label for guess in self.unjudged])
            lines.append(f"There is no interval yet to hold these guesses against: {labels}.")
        if not self.guesses:
            return lines or ["Nobody predicted this result."]
        first = self.closest
        named = _names([f"{g.label} ({format_ratio(g.predicted)})" for g in first])
        if len(first) == len(self.guesses) > 1:
            lines.insert(0, f"The intervals do not tell the guesses apart: {named}.")
        elif len(first) > 1:
            lines.insert(0, f"Closest, and not told apart by the intervals: {named}.")
        else:
            lines.insert(0, f"Closest: {named}.")
        wide = [g.label for g in first if g.inside and g.wide]
        if wide:
            lines.append(
                f"The interval of {_names(wide)} is so wide that many guesses would lie in it."
            )
        if len(self.guesses) > 1:
            lines.append(self._all_guesses())
            last = self.guesses[-1]
            if last not in first:
                lines.append(f"Farthest: {last}.")
        unnamed = list(dict.fromkeys(g.seat.label for g in self.guesses if g.turn))
        if unnamed:
            lines.append(
                f"{_names(unnamed)} made several guesses without a name: whether of one person "
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

        rows = [_plain(row) for row in self.rows]
        return pd.DataFrame(rows, columns=list(_COLUMNS))

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
            about, here = _plain(row), row.seat.machine
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

    def plot(self) -> Figure:
        """The speed-up of each machine with its interval and verdict."""
        from labkit import board_plots

        return board_plots.forest_figure(self)

    def guesses_plot(self) -> Figure:
        """Each guess beside the interval of its result."""
        from labkit import board_plots

        return board_plots.guesses_figure(self)

    def facts_plot(self) -> Figure:
        """The machines divided by the facts that go with the differences."""
        from labkit import board_plots

        return board_plots.facts_figure(self)

    def __repr__(self) -> str:
        return f"<View of {self.question}>"

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        return tables.result_html(*self.table(), str(self.question))


_COLUMNS = (
    *("machine", "person", "speedup", "speedup_low", "speedup_high", "verdict", "rounds", "runs"),
    *("caveats", "processor", "isa", "limits", "usable_cores", "threads", "memory_bytes"),
    *("accelerators", "torch_version", "failure", "started_utc", "file"),
)


@dataclass(frozen=True, eq=False)
class Board:
    """A folder of records at one moment; `again` looks once more.

    Attributes:
        folder: where the records are.
        runs: the ratios of all records, the oldest first.
        seats: who and where, in the order of arrival.
        skipped: the reasons why other files are no records, by file.
        problem: why the folder itself could not be read; empty if it could.

    >>> import tempfile
    >>> from labkit.results import Comparison
    >>> from labkit.trials import Trial
    >>> times = {"a": (2e-3,) * 20, "b": (1e-3,) * 20}
    >>> trials = {name: Trial(name, t, tuple(range(20))) for name, t in times.items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, guess in {"Ada": 2.0, "Bo": 5.0}.items():
    ...         found = Comparison(trials, title="halves", prediction=guess)
    ...         path = found.save(folder, person=name)
    ...     view = board(folder).view("halves")
    >>> [guess.label for guess in view.closest]
    ['Ada']
    >>> print(view.guesses[-1])
    Bo said 5.00x; b is 2.00x [2.00x, 2.00x]: 2.5 times less than said
    """

    folder: Path
    runs: tuple[Run, ...] = ()
    seats: tuple[Seat, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    _read: Mapping[str, tuple[Record, tuple[_Found, ...], str]] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """How many records were read."""
        return len(self._read)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """All that was asked, in the order of their names."""
        return tuple(sorted({run.question for run in self.runs}))

    def again(self) -> Board:
        """Look into the folder once more.

        Returns:
            A new board; this one where nothing has changed. Numbers of machines stay. A folder
            that cannot be read at this moment loses nothing that was read before.
        """
        try:
            records, skipped = read_folder(self.folder)
            problem = "" if os.access(self.folder, os.R_OK | os.X_OK) else "it must not be read"
        except FileNotFoundError:
            records, skipped, problem = [], {}, "there is no such folder"
        except OSError as error:
            records, skipped, problem = [], {}, str(error.strerror or error)
        if problem:
            if problem == self.problem:
                return self
            return Board(self.folder, self.runs, self.seats, self.skipped, problem, self._read)
        read = {}
        for record in records:
            known = self._read.get(record.id)
            # A copy may stand for a file that was removed.
            if known is None or known[0].file != record.file:
                known = (record, *_found_in(record))
            read[record.id] = known
            if known[2]:
                skipped[record.file] = known[2]
        read = {key: known for key, known in read.items() if not known[2]}
        if read == self._read and skipped == self.skipped and not self.problem:
            return self
        found = [one for _, ones, _ in read.values() for one in ones]
        found.sort(key=lambda one: (one.started_utc, one.file))
        seats = _seated(found, self.seats)
        numbers = {(s.person, _kind(s.machine)): s.number for s in seats}
        runs = tuple(one.seated(numbers[one.person, _kind(one.machine)]) for one in found)
        return Board(self.folder, runs, seats, skipped, "", read)

    def view(
        self,
        experiment: str | None = None,
        parameters: Mapping[str, Any] | str | None = None,
        variant: str | None = None,
    ) -> View:
        """What all machines say to one question.

        Args:
            experiment: its name; None, here and below: the one that most machines measured.
            parameters: all of them, by name or as text ("size=256, threads=1").
            variant: the one that is held against the baseline.

        Raises:
            LabkitError: there is no record yet; with what to do.
            ValueError: nobody measured that; with what there is.
        """
        if not self.questions:
            raise LabkitError(" ".join(self.sentences))
        wanted = parameters_text(parameters) if isinstance(parameters, Mapping) else parameters
        left = list(self.questions)
        for name, given in (
            ("experiment", experiment),
            ("parameters", wanted),
            ("variant", variant),
        ):
            if given is None:
                continue
            there = list(dict.fromkeys(getattr(q, name) for q in left))
            left = [q for q in left if getattr(q, name) == given]
            if not left:
                raise ValueError(f"{name} {given!r} is in no record; there are {there}")
        return self.view_of(max(left, key=self._weight))

    def view_of(self, question: Question) -> View:
        """What all machines say to this question; empty where none does."""
        seats = {seat.number: seat for seat in self.seats}
        by_seat: dict[int, list[Run]] = {}
        for run in self.runs:
            if run.question == question:
                by_seat.setdefault(run.seat, []).append(run)
        rows = [_row(seats[number], runs) for number, runs in by_seat.items()]
        guesses = [g for number, runs in by_seat.items() for g in _guesses(seats[number], runs)]
        same = {run.seat for run in self.runs if run.question.experiment == question.experiment}
        return View(
            question,
            tuple(sorted(rows, key=_order)),
            tuple(
                sorted(
                    (g for g in guesses if g.run.known),
                    key=lambda g: (g.nearest, g.farthest, g.label),
                )
            ),
            tuple(g for g in guesses if not g.run.known),
            len(same - set(by_seat)),
        )

    def _weight(self, question: Question) -> tuple[int, int]:
        runs = [run for run in self.runs if run.question == question]
        return len({run.seat for run in runs}), sum(run.prediction is not None for run in runs)

    @property
    def sentences(self) -> list[str]:
        """What there is, in words; without records, how to get them."""
        lines = []
        if self.problem:
            lines.append(f"The folder {self.folder} cannot be read now: {self.problem}.")
        if self.records:
            experiments = len({question.experiment for question in self.questions})
            named = len({seat.person for seat in self.seats} - {""})
            kinds = len({_kind(seat.machine) for seat in self.seats})
            lines.append(
                f"{_count(self.records, 'record')} of {_count(experiments, 'experiment')}, from "
                f"{_count(len(self.seats), 'machine')} of {_count(kinds, 'kind')}; "
                f"{_count(named, 'person gave a name', 'people gave their name')}."
            )
        else:
            lines += [f"There are no records in {self.folder} yet.", *how_to_get_records()]
        for name in list(self.skipped)[:_NAMED_AT_MOST]:
            lines.append(f"Not read: {name}: {self.skipped[name]}.")
        if len(self.skipped) > _NAMED_AT_MOST:
            lines.append(f"{len(self.skipped) - _NAMED_AT_MOST} more files were not read.")
        return lines

    def to_frame(self) -> pd.DataFrame:
        """One row a ratio of a record, the oldest first.

        Columns: experiment, parameters, baseline, variant, prediction, then as `View.to_frame`;
        runs is 1.
        """
        import pandas as pd

        seats = {seat.number: seat for seat in self.seats}
        names = ("experiment", "parameters", "baseline", "variant")
        rows = [
            {name: getattr(run.question, name) for name in names}
            | {"prediction": run.prediction}
            | _plain(Row(seats[run.seat], run))
            for run in self.runs
        ]
        return pd.DataFrame(rows, columns=[*names, "prediction", *_COLUMNS])

    def panel(self) -> BoardPanel:
        """The board live: it looks into its folder every few seconds."""
        from labkit.board_panel import BoardPanel

        return BoardPanel(self)

    def __repr__(self) -> str:
        return f"Board({str(self.folder)!r})"

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def board(folder: str | Path | None = None) -> Board:
    """The records of a class, side by side.

    Files that are no whole records are named with the reason, and left out; so is a folder that
    is missing: the board then says how to get records.

    Args:
        folder: where records are written or were collected; None: what the environment variable
            LABKIT_RECORDS names, or "records".

    Returns:
        A `Board`: ``.view()`` for tables, sentences and figures, ``.panel()`` for the live one.

    >>> print(board("nowhere").sentences[0])
    The folder nowhere cannot be read now: there is no such folder.
    """
    return Board(records_folder() if folder is None else Path(folder)).again()


def how_to_get_records() -> list[str]:
    """What to do where there are none."""
    return [
        (
            "With a shared folder: set LABKIT_RECORDS to its path on every machine, this one too, "
            "before JupyterLab starts (export LABKIT_RECORDS=/path/of/the/folder); each run and "
            "sweep on a panel then leaves a record there."
        ),
        (
            'Without one: tick "keep a record" on a panel; records go to the folder "records" '
            'beside the notebook. "Download everything (JSON)" saves one, too. Collect the files '
            "in one folder, and name that folder here."
        ),
        "A record has a name only where a person gives one: on the panel, or in LABKIT_NAME.",
    ]


@dataclass(frozen=True)
class _Found:
    """A run before it has a seat."""

    file: str
    person: str
    machine: Machine | None
    question: Question
    ratio: Ratio
    prediction: float | None
    caveats: tuple[str, ...]
    threads: int | None
    started_utc: str

    def seated(self, number: int) -> Run:
        return Run(
            self.file,
            number,
            self.question,
            self.ratio,
            self.prediction,
            self.caveats,
            self.threads,
            self.started_utc,
        )


def _found_in(record: Record) -> tuple[tuple[_Found, ...], str]:
    """The runs of a record, and why there are none."""
    try:
        found = tuple(one for c in record.comparisons for one in _ratios(record, c))
    except Exception as error:
        # The checksum is right, so labkit wrote it or somebody who knows how: but what is in it
        # makes no sense, such as a time of 0 s.
        return (), f"its numbers make no comparison ({type(error).__name__}: {error})"
    return found, "" if found else "it compares nothing"


def _ratios(record: Record, comparison: Comparison) -> Iterable[_Found]:
    about = str(comparison.title or "comparison"), parameters_text(comparison.parameters)
    for name in comparison.names[1:]:
        ratio = comparison[name]
        # Now, and not when it is drawn: here a mistake is a skipped file.
        float(ratio.low), float(ratio.speedup), str(ratio)
        trials = comparison.trials[name], comparison.trials[comparison.baseline]
        caveats = [*comparison.caveats, *(c for t in trials for c in t.caveats)]
        yield _Found(
            record.file,
            " ".join(record.person.split())[:_LONGEST_NAME],
            comparison.machine,
            Question(*about, comparison.baseline, name),
            ratio,
            _guessed(comparison.prediction) if name == comparison.names[-1] else None,
            tuple(
                dict.fromkeys(
                    str(c.kind)
                    for c in caveats
                    if c.kind not in _NOT_OF_RATIOS
                    and c.variant in (None, name, comparison.baseline)
                )
            ),
            trials[0].threads,
            str(comparison.started_utc or ""),
        )


def _guessed(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < math.inf else None


def _kind(machine: Machine | None) -> str:
    return machine.fingerprint if machine else ""


def _seated(found: Sequence[_Found], before: Sequence[Seat]) -> tuple[Seat, ...]:
    """A seat for each person and kind of machine; those that were there keep their number."""
    machines: dict[tuple[str, str], Machine | None] = {
        (seat.person, _kind(seat.machine)): seat.machine for seat in before
    }
    for one in found:
        # The newest knows best: versions and accelerators are not in the fingerprint.
        machines[one.person, _kind(one.machine)] = one.machine
    names = Counter(person for person, _ in machines)
    return tuple(
        Seat(number, person, machine, bool(person) and names[person] > 1)
        for number, ((person, _), machine) in enumerate(machines.items(), start=1)
    )


def _row(seat: Seat, runs: Sequence[Run]) -> Row:
    newest = next((run for run in reversed(runs) if run.known), runs[-1])
    return Row(seat, newest, tuple(run for run in reversed(runs) if run is not newest))


def _order(row: Row) -> tuple[bool, float, int]:
    return not row.run.known, -row.run.ratio.speedup if row.run.known else 0.0, row.seat.number


def _guesses(seat: Seat, runs: Sequence[Run]) -> list[Guess]:
    """A person's first guess; without names, every different one."""
    made = [(run.prediction, run) for run in runs if run.prediction is not None]
    if seat.person:
        return [Guess(seat, run, predicted) for predicted, run in made[:1]]
    first: dict[float, Run] = {}
    for predicted, run in made:
        first.setdefault(predicted, run)
    several = len(first) > 1
    return [
        Guess(seat, run, predicted, turn if several else 0)
        for turn, (predicted, run) in enumerate(first.items(), start=1)
    ]


def _plain(row: Row) -> dict[str, Any]:
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
    blank = dict.fromkeys(name for name in _COLUMNS if name not in about)
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


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _names(labels: Sequence[str]) -> str:
    """A list for people, cut where it gets long.

    >>> _names(["a", "b", "c"])
    'a, b and c'
    """
    if len(labels) > _NAMED_AT_MOST + 1:
        return f"{', '.join(labels[:_NAMED_AT_MOST])} and {len(labels) - _NAMED_AT_MOST} more"
    return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))
