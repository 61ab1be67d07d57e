"""The records of a class, side by side: guesses, what each machine gave, what goes with it.

A folder of kept results becomes a `Board`; each question that it holds (an experiment with its
parameters, and two of its variants) becomes a `labkit.board_views.View`, with sentences and
tables. Nothing here knows of widgets or figures.
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

from labkit.board_views import COLUMNS, Guess, Question, Row, Run, Seat, View, count_of, plain_row
from labkit.errors import LabkitError
from labkit.files import records_folder
from labkit.records import parameters_text, read_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from labkit.board_panel import BoardPanel
    from labkit.machines import Machine
    from labkit.records import Record
    from labkit.results import Comparison

# These say something of absolute times or of memory, nothing of a ratio of times.
_NOT_OF_RATIOS = ("drift", "memory")
_NAMED_AT_MOST = 5
_LONGEST_NAME = 40


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
    _read: Mapping[str, tuple[Record, tuple[Run, ...], str]] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """How many records were read."""
        return len(self._read)

    @cached_property
    def _seat_of(self) -> dict[tuple[str, str], Seat]:
        return {seat.place: seat for seat in self.seats}

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
        runs = [run for _, found, _ in read.values() for run in found]
        runs.sort(key=lambda run: (run.started_utc, run.file))
        return Board(self.folder, tuple(runs), _seated(runs, self.seats), skipped, "", read)

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
        by_seat: dict[Seat, list[Run]] = {}
        same = set()
        for run in self.runs:
            if run.question == question:
                by_seat.setdefault(self._seat_of[run.place], []).append(run)
            if run.question.experiment == question.experiment:
                same.add(self._seat_of[run.place])
        rows = [_row(seat, runs) for seat, runs in by_seat.items()]
        guesses = [guess for seat, runs in by_seat.items() for guess in _guesses(seat, runs)]
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
        return len({run.place for run in runs}), sum(run.prediction is not None for run in runs)

    @property
    def sentences(self) -> list[str]:
        """What there is, in words; without records, how to get them."""
        lines = []
        if self.problem:
            lines.append(f"The folder {self.folder} cannot be read now: {self.problem}.")
        if self.records:
            experiments = len({question.experiment for question in self.questions})
            named = len({seat.person for seat in self.seats} - {""})
            kinds = len({kind for _, kind in self._seat_of})
            lines.append(
                f"{count_of(self.records, 'record')} of {count_of(experiments, 'experiment')}, "
                f"from {count_of(len(self.seats), 'machine')} of {count_of(kinds, 'kind')}; "
                f"{count_of(named, 'person gave a name', 'people gave their name')}."
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

        names = ("experiment", "parameters", "baseline", "variant")
        rows = [
            {name: getattr(run.question, name) for name in names}
            | {"prediction": run.prediction}
            | plain_row(Row(self._seat_of[run.place], run))
            for run in self.runs
        ]
        return pd.DataFrame(rows, columns=[*names, "prediction", *COLUMNS])

    def panel(self) -> BoardPanel:
        """The board live: it looks into its folder every few seconds."""
        from labkit.board_panel import BoardPanel

        return BoardPanel(self)

    def _repr_mimebundle_(self, **given: Any) -> dict[str, Any]:
        return self.panel()._repr_mimebundle_(**given)

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
        A `Board`. A notebook shows its live panel; ``.view()`` has tables, sentences and figures.

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


def _found_in(record: Record) -> tuple[tuple[Run, ...], str]:
    """The runs of a record, and why there are none."""
    try:
        found = tuple(one for c in record.comparisons for one in _ratios(record, c))
    except Exception as error:
        # The checksum is right, so labkit wrote it or somebody who knows how: but what is in it
        # makes no sense, such as a time of 0 s.
        return (), f"its numbers make no comparison ({type(error).__name__}: {error})"
    return found, "" if found else "it compares nothing"


def _ratios(record: Record, comparison: Comparison) -> Iterable[Run]:
    about = str(comparison.title or "comparison"), parameters_text(comparison.parameters)
    for name in comparison.names[1:]:
        ratio = comparison[name]
        # Now, and not when it is drawn: here a mistake is a skipped file.
        float(ratio.low), float(ratio.speedup), str(ratio)
        trials = comparison.trials[name], comparison.trials[comparison.baseline]
        caveats = [*comparison.caveats, *(c for t in trials for c in t.caveats)]
        yield Run(
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


def _seated(runs: Sequence[Run], before: Sequence[Seat]) -> tuple[Seat, ...]:
    """A seat for each person and kind of machine; those that were there keep their number."""
    machines: dict[tuple[str, str], Machine | None] = {seat.place: seat.machine for seat in before}
    for run in runs:
        # The newest knows best: versions and accelerators are not in the fingerprint.
        machines[run.place] = run.machine
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
