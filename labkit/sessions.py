"""What a panel drives: one experiment, its values, a prediction, and one run or sweep at a time.

Nothing here knows of widgets, so everything that a panel does can be done, and tested, without
a front end.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

from labkit import progress
from labkit.errors import LabkitError
from labkit.recorder import Settings
from labkit.sweeps import Sweep, SweepPoint
from labkit.units import format_ratio
from labkit.worker import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labkit.experiments import Experiment
    from labkit.parameters import Parameter
    from labkit.results import Comparison, Ratio
    from labkit.worker import Run

_F = TypeVar("_F", bound="Callable[..., Any]")
_SETTINGS = ("agree", "budget_s", "confidence", "resolution", "memory", "deadline_s", "trace")
# As many points as a person waits for.
_SWEEP_POINTS = 6


def _locked(method: _F) -> _F:
    """One thread at a time: a front end's events arrive on a thread that nobody can foretell."""

    @functools.wraps(method)
    def call(self: Session, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return cast("_F", call)


class Session:
    """One experiment as somebody works with it.

    Args:
        experiment: what to measure.
        predict: whether the first run needs a prediction.
        **given: values to start with, and settings of `labkit.experiments.Experiment.prepare`.

    Raises:
        TypeError, ValueError: an unknown name, or a value that is not allowed.
    """

    def __init__(self, experiment: Experiment, *, predict: bool = True, **given: Any) -> None:
        known = (*experiment.parameters, *_SETTINGS)
        for name in given:
            if name not in known:
                raise TypeError(
                    f"{experiment.name} has no parameter and a panel no setting {name!r}; there "
                    f"are {', '.join(known)} and predict"
                )
        self.experiment = experiment
        self.settings = {name: given[name] for name in _SETTINGS if name in given}
        Settings(**{name: v for name, v in self.settings.items() if name != "agree"})
        self.values = experiment.check(
            **{name: v for name, v in given.items() if name in experiment.parameters}
        )
        self.prediction: float | None = None
        self.predict_first = predict
        self.error = ""
        # Whether a file is kept of each run or sweep, of whom (None: LABKIT_NAME), and what came
        # of it.
        self.keep = bool(os.environ.get("LABKIT_RECORDS", "").strip())
        self.person: str | None = None
        self.kept, self.not_kept = "", ""
        # Whether the last run or sweep was ended before its end.
        self.stopped = False
        self._lock = threading.RLock()
        self._run: Run | None = None
        self._last: Comparison | None = None
        self._present: dict[str, Any] = {}
        self._swept: tuple[str, ...] = ()
        self._todo: list[dict[str, Any]] = []
        self._points: list[SweepPoint] = []
        self._total = 0
        self._status = Status.NEW

    @property
    def status(self) -> Status:
        """Where the run or sweep is; "new" before the first."""
        run = self._run
        return run.status if run is not None else self._status

    @property
    def running(self) -> bool:
        """Whether a run or sweep is under way."""
        return self._run is not None

    @property
    def comparison(self) -> Comparison | None:
        """The result so far, of the last run that was started; None before the first."""
        run = self._run
        return run.comparison if run is not None else self._last

    @property
    def stage(self) -> str:
        """What is being done at this moment, in a few words; empty if nothing is."""
        run = self._run
        if run is None:
            return ""
        if not self._swept:
            return run.stage
        at = ", ".join(f"{name}={self._present[name]}" for name in self._swept)
        return f"point {len(self._points) + 1} of {self._total} ({at}): {run.stage}"

    @property
    def progress(self) -> float:
        """Share of the work that is done, from 0 to 1."""
        run = self._run
        if run is None:
            return 0.0 if self._status is Status.NEW else 1.0
        return (len(self._points) + run.progress) / max(1, self._total)

    @property
    def left_s(self) -> float:
        """Seconds that are left at most."""
        run = self._run
        if run is None:
            return 0.0
        return run.left_s + len(self._todo) * run.settings.budget_s

    @property
    def sweep_result(self) -> Sweep | None:
        """The points of the last sweep so far; None if the last thing was a run."""
        if not self._swept:
            return None
        return Sweep(self._swept, tuple(self._points), title=self.experiment.name)

    @property
    def score(self) -> str:
        """How far the prediction was off, in a sentence; empty without one."""
        found = self._last
        if self.running or self._swept or found is None or found.prediction is None:
            return ""
        return score(found.prediction, found[found.names[-1]])

    @property
    def changed_since(self) -> bool:
        """Whether the values are no longer those of the result that is shown."""
        if self.running or self._swept or self._last is None:
            return False
        return dict(self._last.parameters) != self.values

    @_locked
    def set(self, **values: Any) -> None:
        """Change values for the next run.

        Raises:
            TypeError, ValueError: an unknown name, or a value that is not allowed; then
                nothing is changed.
        """
        self.values = self.experiment.check(**{**self.values, **values})

    @_locked
    def predict(self, speedup: float | str | None) -> None:
        """Say how many times as fast as the baseline the last variant will be.

        Args:
            speedup: above 0; below 1 is slower. A text such as "2.5" or "2.5x" is read; None
                takes the prediction back.

        Raises:
            ValueError: anything else.
        """
        if speedup is None or (isinstance(speedup, str) and not speedup.strip()):
            self.prediction = None
            return
        try:
            number = float(
                speedup.strip().rstrip("xX\u00d7").replace(",", ".")
                if isinstance(speedup, str)
                else speedup
            )
        except (TypeError, ValueError):
            number = math.nan
        if not (number > 0 and math.isfinite(number)) or isinstance(speedup, bool):
            raise ValueError(
                f"prediction {speedup!r}: give a number above 0, such as 2 (twice as fast) or 0.5 "
                "(half as fast)"
            )
        self.prediction = number

    @_locked
    def start(self) -> None:
        """Start one run with the present values; returns at once.

        Raises:
            LabkitError: something is running, or there is no prediction yet.
            Exception: whatever making the variants raises.
        """
        self._check_ready()
        self._begin((), [dict(self.values)])

    @_locked
    def sweep(self, **values: Any) -> None:
        """Start a sweep; returns at once.

        Args:
            **values: a list for each parameter to sweep over, single values for others.

        Raises:
            LabkitError, TypeError, ValueError: as `start`, and for values that are not allowed.
        """
        self._check_ready()
        swept, grid, fixed = self.experiment.plan_sweep(**{**self.values, **values})
        self._begin(swept, [{**fixed, **point} for point in grid])

    def sweep_values(self, name: str) -> list[Any]:
        """The values that a sweep over this parameter takes if none are given."""
        return sweep_values(self.experiment.parameters[name])

    @_locked
    def poll(self, timeout_s: float = 0.0) -> bool:
        """Take in what has happened, waiting at most ``timeout_s`` for something to happen.

        Returns:
            Whether anything changed.
        """
        run = self._run
        if run is None:
            return False
        error = ""
        try:
            changed = run.poll(timeout_s)
        except Exception as why:
            changed, error = True, f"{type(why).__name__}: {why}"
        if run.done:
            self._finish(run, error or (str(run.error) if run.error else ""))
            return True
        return changed

    def wait(self, on_change: Callable[[], None] | None = None) -> None:
        """Block until the run or sweep has ended.

        Args:
            on_change: called whenever there is news.

        Raises:
            KeyboardInterrupt: the run is ended first.
        """
        try:
            while self.running:
                if self.poll(0.05) and on_change is not None:
                    on_change()
        except BaseException:
            self.stop()
            raise

    @_locked
    def stop(self) -> None:
        """End the run or sweep at once; what was measured is kept."""
        run = self._run
        if run is None:
            return
        left = bool(self._todo)
        self._todo.clear()
        run.stop()
        self._finish(run, "")
        # The point under way may have ended by itself at this moment; the sweep has not.
        self.stopped = left or run.status is Status.STOPPED

    def save(self, path: str | Path | None = None) -> Path:
        """Write what is shown, with all raw samples, as JSON.

        Args:
            path: as in `labkit.Comparison.save`.

        Raises:
            LabkitError: there is nothing yet.
            OSError: as `labkit.Comparison.save`.
        """
        result = self.sweep_result or self.comparison
        if result is None:
            raise LabkitError("there is no result to save yet: run first")
        return result.save(path, person=self.person)

    def _check_ready(self) -> None:
        if self.running:
            raise LabkitError(f"{self.experiment.name} is {self.status} already: stop it first")
        if self.predict_first and self.prediction is None and self._last is None:
            raise LabkitError(
                "predict first: how many times as fast as the baseline will the last variant be? "
                "2 is twice as fast, 0.5 half as fast"
            )

    def _begin(self, swept: tuple[str, ...], todo: list[dict[str, Any]]) -> None:
        self.error, self.stopped, self.kept, self.not_kept = "", False, "", ""
        self._swept, self._todo, self._points, self._total = swept, todo, [], len(todo)
        try:
            self._next()
        except BaseException:
            self._todo.clear()
            raise

    def _next(self) -> None:
        """Start on the next point that can be started; a sweep keeps those that cannot."""
        self._run = None
        while self._todo:
            values = self._todo.pop(0)
            prediction = None if self._swept else self.prediction
            try:
                run = self.experiment.prepare(**self.settings, **values, prediction=prediction)
                run.start()
            except Exception as why:
                if not self._swept:
                    raise
                self._keep(values, None, f"{type(why).__name__}: {why}")
                continue
            self._run, self._present = run, values
            return

    def _finish(self, run: Run, error: str) -> None:
        found = run.comparison
        self._status, self.error = run.status, "" if self._swept else error
        if self._swept and (found.rounds or error or run.status is not Status.STOPPED):
            self._keep(found.parameters, None if error else found, error)
        self._last = found
        self._next()
        if self._run is None:
            if self.keep:
                self._record()
            self._remember()

    def _record(self) -> None:
        """Keep what was measured; whatever goes wrong with that, the result stays."""
        result = self.sweep_result if self._swept else self._last
        measured = result.comparisons if isinstance(result, Sweep) else [result]
        if result is None or not any(c.trials and c.rounds for c in measured if c is not None):
            return
        try:
            path = result.save(person=self.person)
        except Exception as why:
            reason = getattr(why, "strerror", None) or f"{type(why).__name__}: {why}"
            self.not_kept = f"No record was kept: {reason}. The result is still here, below."
        else:
            self.kept = f"Kept as {path.name} in {path.parent}"

    def _remember(self) -> None:
        """Keep the learner's progress; that it cannot be kept is one quiet line."""
        result = self.sweep_result if self._swept else self._last
        if result is not None:
            self.kept = " ".join(filter(None, [self.kept, progress.keep_run(result, self.score)]))

    def _keep(self, values: Any, comparison: Comparison | None, error: str = "") -> None:
        at = {name: values[name] for name in self._swept}
        self._points.append(SweepPoint(at, comparison, error))


def score(predicted: float, ratio: Ratio) -> str:
    """What a prediction was worth, in a sentence.

    >>> from labkit.results import Ratio
    >>> score(2.0, Ratio("b", "a", log_ratios=(1.1, 1.09, 1.11) * 20))
    'You said 2.00x; b is 3.00x [2.97x, 3.03x]: 1.5 times more than you said.'
    """
    said = f"You said {format_ratio(predicted)}"
    if not ratio.rounds or not math.isfinite(ratio.high):
        return f"{said}; there is no result to hold it against."
    seen = f"{said}; {ratio.name} is {format_ratio(ratio.speedup)} {ratio.interval_text}"
    if ratio.low <= predicted <= ratio.high:
        return f"{seen}: your prediction lies in the interval."
    factor = ratio.speedup / predicted
    if 1 / 1.05 < factor < 1.05:
        return f"{seen}: you were within 5 %."
    word = "more" if factor > 1 else "less"
    times = float(f"{max(factor, 1 / factor):.2g}")
    return f"{seen}: {times:g} times {word} than you said."


def sweep_values(parameter: Parameter) -> list[Any]:
    """All choices, both states of a switch, or a few numbers over a range.

    >>> from labkit.parameters import parse
    >>> sweep_values(parse("size", [64, 256])), sweep_values(parse("threads", (1, 4)))
    ([64, 256], [1, 2, 3, 4])
    >>> sweep_values(parse("steps", (1, 1000)))
    [1, 4, 16, 63, 251, 1000]
    """
    if parameter.kind == "choice":
        return [value for _, value in parameter.choices]
    if parameter.kind == "switch":
        return [False, True]
    low, high, step = parameter.low, parameter.high, parameter.step
    if parameter.kind != "range" or low is None or high is None or step is None:
        return []
    whole = isinstance(parameter.default, int)
    count = 1 + math.floor((high - low) / step + 1e-9)
    n = min(_SWEEP_POINTS, count)
    # Equal factors over a wide range of positive numbers, equal steps otherwise.
    if low > 0 and high / low >= 20:
        numbers = [low * (high / low) ** (i / (n - 1)) for i in range(n)]
    else:
        numbers = [low + i * (high - low) / (n - 1) for i in range(n)]
    steps = sorted({min(count - 1, round((v - low) / step)) for v in numbers})
    # Twelve digits: 0.1 + 2 * 0.1 is 0.3 for a person.
    return [int(low + i * step) if whole else float(f"{low + i * step:.12g}") for i in steps]
