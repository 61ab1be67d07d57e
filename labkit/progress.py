"""What a learner has done: answers to quizzes, predictions and results on panels, kept locally.

Each event is a small file of its own, written whole or not at all, so that several kernels lose
nothing of each other's. They lie in the folder that the environment variable LABKIT_PROGRESS
names, otherwise in the user's data folder; LABKIT_PROGRESS=off keeps nothing. No name is in them
unless LABKIT_NAME says one, and nothing is sent anywhere. Only what a person does is kept: a
quiz and a panel call this, `Experiment.run` does not. To begin anew, delete the folder.

`labkit.summary` makes a page of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs

from labkit.files import SCHEMA_VERSION, seal, unseal, write_new
from labkit.results import Comparison
from labkit.sweeps import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_T = TypeVar("_T")

# A year of lessons, and yet nothing that a home on a shared server would notice.
_MOST_FILES = {"answer": 2000, "run": 1000, "result": 24}
_MOST_RESULT_BYTES = 2_000_000


@dataclass(frozen=True)
class Answer:
    """A question of a quiz as somebody answered it.

    Attributes:
        quiz: its name.
        question: its text.
        answer: the one that was chosen.
        correct: whether it is right.
        questions: the texts of all questions that the quiz had then.
        at_utc: ISO 8601.
    """

    quiz: str
    question: str
    answer: str
    correct: bool
    questions: tuple[str, ...]
    at_utc: str = ""


@dataclass(frozen=True)
class PanelRun:
    """A run on a panel whose result is known, with the prediction that was made before it.

    Attributes:
        notebook: its name, "" where it is not known.
        experiment: its name.
        parameters: of the experiment.
        variant, baseline: the prediction is of the speed-up of one over the other.
        predicted: the speed-up; None if nobody predicted it.
        speedup, low, high: what was measured, and its interval.
        verdict: in one word.
        score: what the prediction was worth, in a sentence.
        at_utc: ISO 8601.
    """

    notebook: str
    experiment: str
    parameters: Mapping[str, Any]
    variant: str
    baseline: str
    predicted: float | None
    speedup: float
    low: float
    high: float
    verdict: str
    score: str
    at_utc: str = ""

    @property
    def label(self) -> str:
        """The experiment with its values, for people."""
        values = ", ".join(f"{name}={self.parameters[name]}" for name in sorted(self.parameters))
        return f"{self.experiment} ({values})" if values else self.experiment


@dataclass(frozen=True)
class PanelResult:
    """The newest result of an experiment on a panel.

    Attributes:
        notebook: its name, "" where it is not known.
        result: with its raw samples.
        at_utc: ISO 8601.
    """

    notebook: str
    result: Comparison | Sweep
    at_utc: str = ""


@dataclass(frozen=True)
class Progress:
    """All that is kept, each list in the order of its events.

    Attributes:
        answers: the first and the last one to each question.
        runs: the first and the last one of each experiment with the same parameters.
        results: the newest one of each experiment.
        skipped: why a file could not be read, by its name.
    """

    answers: tuple[Answer, ...] = ()
    runs: tuple[PanelRun, ...] = ()
    results: tuple[PanelResult, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Progress({len(self.answers)} answers, {len(self.runs)} runs, "
            f"{len(self.results)} results, {len(self.skipped)} files skipped)"
        )


def folder() -> Path | None:
    """Where progress is kept; None: nowhere (LABKIT_PROGRESS is "off", or the user has no home).

    >>> import os
    >>> os.environ["LABKIT_PROGRESS"] == str(folder())  # named, as in the tests of labkit
    True
    """
    named = os.environ.get("LABKIT_PROGRESS", "").strip()
    if named.lower() == "off":
        return None
    return Path(named) if named else _data_folder()


def _data_folder() -> Path | None:
    try:
        return platformdirs.user_data_path("labkit", appauthor=False) / "progress"
    except RuntimeError:  # a user without a home, as in some containers
        return None


def keep_answer(answer: Answer) -> str:
    """Keep an answer; of those to one question, the first and the last stay.

    Returns:
        Why it was not kept; empty if it was, or if nothing is to be kept. Nothing is raised.
    """
    return _quietly(lambda: _keep("answer", (answer.quiz, answer.question), vars(answer)))


def keep_run(result: Comparison | Sweep, score: str = "") -> str:
    """Keep what came of a run or sweep on a panel, once there is an interval.

    Of the runs of one experiment with the same parameters, the first and the last stay; of the
    results of one experiment, the last.

    Args:
        result: with its raw samples; a large one (above 2 MB) is not kept, only its numbers.
        score: what the prediction was worth, in a sentence.

    Returns:
        Why it was not kept; empty if it was, or if nothing is to be kept. Nothing is raised.
    """
    return _quietly(lambda: _keep_run(result, score))


def read(place: str | Path | None = None) -> Progress:
    """All that is kept; a file that cannot be read is named in ``skipped``, and left alone.

    Args:
        place: another folder than `folder`, such as a copy of somebody's.
    """
    where = folder() if place is None else Path(place)
    if where is None:
        return Progress()
    skipped: dict[str, str] = {}

    def events(kind: str, parse: Callable[[dict[str, Any]], _T]) -> tuple[_T, ...]:
        found = []
        for path in _kept(where, kind):
            try:
                found.append(parse(_load(path)))
            except FileNotFoundError:
                continue  # another kernel has kept a newer one in its place
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                skipped[path.name] = f"{type(error).__name__}: {error}"
        return tuple(found)

    answers, runs = events("answer", _answer), events("run", _run)
    return Progress(answers, runs, events("result", _result), skipped)


def _load(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        # Reading a pipe would wait for ever.
        raise ValueError("not a plain file")
    return unseal(path.read_text(encoding="utf-8"))


def _keep_run(result: Comparison | Sweep, score: str) -> None:
    comparisons = result.comparisons if isinstance(result, Sweep) else [result]
    if not any(_is_known(comparison) for comparison in comparisons):
        return
    notebook = _notebook()
    about = {"notebook": notebook, "experiment": result.title}
    if isinstance(result, Comparison):
        ratio = result[result.names[-1]]
        parameters = {name: result.parameters[name] for name in sorted(result.parameters)}
        run = {
            **about,
            "parameters": parameters,
            "variant": ratio.name,
            "baseline": ratio.baseline,
            "predicted": result.prediction,
            "speedup": ratio.speedup,
            "low": ratio.low,
            "high": ratio.high,
            "verdict": ratio.verdict.value,
            "score": score,
        }
        # A last variant that failed has no number that a prediction could be held against.
        if 0 < ratio.low <= ratio.high < float("inf"):
            _keep("run", (notebook, result.title, repr(parameters)), run)
    data = {"notebook": notebook, "result": result.to_dict()}
    _keep("result", (notebook, result.title), data, first=False, most_bytes=_MOST_RESULT_BYTES)


def _is_known(comparison: Comparison) -> bool:
    return bool(comparison.trials) and any(
        0 < ratio.low <= ratio.high < float("inf") for ratio in comparison.ratios.values()
    )


def _notebook() -> str:
    """The name of the notebook that this kernel serves, as VS Code or Jupyter's server says it.

    VS Code comes first: where it works with a server, it asks for sessions with names of its own
    making. Source: https://github.com/microsoft/vscode-jupyter/pull/8531.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and (told := shell.user_ns.get("__vsc_ipynb_file__")):
        # It may run on Windows, and its kernel elsewhere: this takes both kinds of paths.
        return PureWindowsPath(str(told)).stem
    return Path(os.environ.get("JPY_SESSION_NAME", "")).stem


def _quietly(keep: Callable[[], None]) -> str:
    """Whatever goes wrong with keeping, the quiz or the panel goes on."""
    try:
        keep()
    except Exception as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else f"{type(error).__name__}: {error}"
        return (
            f"Your progress is not kept in {folder()} ({reason}); all else works. The environment "
            "variable LABKIT_PROGRESS names another folder, or says off."
        )
    return ""


def _keep(
    kind: str,
    key: Sequence[str],
    data: Mapping[str, Any],
    *,
    first: bool = True,
    most_bytes: int | None = None,
) -> None:
    where = folder()
    if where is None:
        return
    now = datetime.now(UTC)
    about = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "at_utc": now.isoformat("T", "seconds"),
    }
    text = seal({**data, **about})
    same_key = f"{kind}-{hashlib.sha256(repr(tuple(key)).encode()).hexdigest()[:16]}"
    if most_bytes is not None and len(text) > most_bytes:
        # An older result must not stand for this one.
        _remove(_kept(where, same_key))
        return
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The time comes first in what tells the events of a key apart: their names are in order.
    moment = now.strftime("%Y%m%dT%H%M%S.%fZ")
    write_new(where / f"{same_key}-{moment}-{secrets.token_hex(4)}.json", text)
    same = _kept(where, same_key)
    # What is neither first nor last among the files that this kernel sees is neither among all.
    _remove(same[1:-1] if first else same[:-1])
    _remove(_kept(where, kind)[: -_MOST_FILES[kind]])


def _kept(where: Path, start: str) -> list[Path]:
    """Files whose names begin so, in the order of their events."""
    return sorted(where.glob(f"{start}-*.json"), key=lambda path: path.name.split("-")[2:])


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        # Another kernel may have done it.
        with contextlib.suppress(OSError):
            path.unlink()


def _answer(data: dict[str, Any]) -> Answer:
    return Answer(
        quiz=str(data["quiz"]),
        question=str(data["question"]),
        answer=str(data["answer"]),
        correct=data["correct"] is True,
        questions=tuple(map(str, data["questions"])),
        at_utc=str(data["at_utc"]),
    )


def _run(data: dict[str, Any]) -> PanelRun:
    predicted = data["predicted"]
    return PanelRun(
        notebook=str(data["notebook"]),
        experiment=str(data["experiment"]),
        parameters=dict(data["parameters"]),
        variant=str(data["variant"]),
        baseline=str(data["baseline"]),
        predicted=None if predicted is None else float(predicted),
        speedup=float(data["speedup"]),
        low=float(data["low"]),
        high=float(data["high"]),
        verdict=str(data["verdict"]),
        score=str(data["score"]),
        at_utc=str(data["at_utc"]),
    )


def _result(data: dict[str, Any]) -> PanelResult:
    kind = Sweep if data["result"].get("kind") == "sweep" else Comparison
    result: Comparison | Sweep = kind.from_dict(data["result"])
    return PanelResult(str(data["notebook"]), result, str(data["at_utc"]))
