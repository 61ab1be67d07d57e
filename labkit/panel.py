"""The live face of an experiment.

Everything a button does is a public method here, which runs without a front end. What is shown
is set as traits of widgets, by whichever thread the news arrives on; nothing is printed.
"""

from __future__ import annotations

import base64
import csv
import io
import threading
import time
import weakref
from functools import partial
from html import escape
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from labkit import frontend, tables
from labkit.controls import allowed, make_control, show_value
from labkit.files import records_folder
from labkit.machines import machine
from labkit.sessions import Session
from labkit.ticks import Ticker
from labkit.worker import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from labkit.experiments import Experiment
    from labkit.figures import Picture
    from labkit.results import Comparison
    from labkit.sweeps import Sweep

# How often the worker is asked for news; painting is rarer.
_POLL_S = 0.05
_PAINT_S = 0.2
# Below two cores the panel takes time from what it watches, so it paints less often.
_PAINT_ON_FEW_CORES_S = 0.34
# Painting takes at most a quarter of one core.
_PAINT_PAUSE = 3
# A screen reader hears of a run no more often than this.
_SAY_S = 5.0

_ROW = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}

# The last panel of each experiment: a cell that is run again must not leave a run behind that
# nobody sees.
_panels: weakref.WeakValueDictionary[str, Panel] = weakref.WeakValueDictionary()


class Panel:
    """Controls, a prediction, Run, Stop and Sweep, and what the run shows.

    Args:
        experiment: what to measure.
        **given: values that the controls start with; ``agree``, ``budget_s``, ``confidence``,
            ``resolution``, ``memory`` and ``deadline_s`` as in `labkit.compare`;
            ``predict=False`` to ask for no prediction.

    Raises:
        TypeError, ValueError: an unknown name, or a value that is not allowed.

    >>> import labkit as lab
    >>> @lab.experiment(steps=[1000, 3000])
    ... def loops(steps):
    ...     return {"short": lambda: sum(range(100)), "long": lambda: sum(range(steps))}
    >>> panel = loops.panel(budget_s=2)
    >>> panel.set(steps=3000)
    >>> panel.predict(0.05)
    >>> panel.start()
    >>> panel.wait()["long"].verdict.value
    'slower'
    """

    def __init__(self, experiment: Experiment, **given: Any) -> None:
        self._session = Session(experiment, **given)
        self._lock = threading.RLock()
        self._ticker = Ticker(self._tick)
        self._painted_s = 0.0
        self._paint_took_s = 0.0
        self._said_s = 0.0
        self._seen: tuple[Any, ...] = ()
        few = machine().usable_cores < 2
        self._paint_every_s = _PAINT_ON_FEW_CORES_S if few else _PAINT_S
        previous = _panels.get(experiment.name)
        if previous is not None:
            previous.stop()
        _panels[experiment.name] = self
        self._build()
        self._show()

    # What a person can do, each a method.

    @property
    def values(self) -> dict[str, Any]:
        """The values that the next run takes."""
        return dict(self._session.values)

    @property
    def status(self) -> Status:
        """Where the run is: new, queued, running, done, stopped or failed."""
        return self._session.status

    @property
    def comparison(self) -> Comparison | None:
        """The result so far; None before the first run."""
        return self._session.comparison

    @property
    def sweep_result(self) -> Sweep | None:
        """The points of the last sweep so far; None if the last thing was a run."""
        return self._session.sweep_result

    def set(self, **values: Any) -> None:
        """Move controls.

        Raises:
            TypeError, ValueError: an unknown name, or a value that is not allowed.
        """
        self._session.set(**values)
        for name, control in self._controls.items():
            show_value(
                control, self._session.experiment.parameters[name], self._session.values[name]
            )
        self._show()

    def predict(self, speedup: float | str | None) -> None:
        """Say how many times as fast as the baseline the last variant will be.

        Raises:
            ValueError: not a number above 0.
        """
        self._session.predict(speedup)
        if isinstance(speedup, int | float):
            self._prediction.value = f"{speedup:g}"
        elif speedup is None:
            self._prediction.value = ""

    def start(self) -> None:
        """Run with the present values. Returns at once in a kernel, at the end elsewhere.

        Raises:
            LabkitError: something is running, or there is no prediction yet.
            Exception: whatever making the variants raises.
        """
        self._session.start()
        self._follow()

    def sweep(self, **values: Any) -> None:
        """Sweep over parameters. Returns at once in a kernel, at the end elsewhere.

        Args:
            **values: a list for each parameter to sweep over; without any, what the panel's
                sweep control says.

        Raises:
            LabkitError, TypeError, ValueError: as `start`, and for values that are not allowed.
        """
        if not values:
            name = self._sweep_over.value
            values = {name: self._session.sweep_values(name)} if name else {}
        self._session.sweep(**values)
        self._follow()

    def stop(self) -> None:
        """End the run or sweep at once, from any thread; what was measured is kept."""
        if self._session.running:
            self._session.stop()
            self._show(picture=True)

    def wait(self) -> Comparison:
        """Block until the run or sweep has ended.

        Returns:
            The comparison, of the last point for a sweep.

        Raises:
            RuntimeError: nothing was started.
            KeyboardInterrupt: the run is ended first.
        """
        self._session.wait(self._show_sometimes)
        self._show(picture=True)
        if self._session.comparison is None:
            raise RuntimeError("nothing was started: call start() first")
        return self._session.comparison

    def keep(self, *, on: bool = True, person: str | None = None) -> None:
        """Keep a record of each run or sweep when it has ended.

        It goes to the folder that the environment variable LABKIT_RECORDS names, or to "records";
        `labkit.history` reads it. A panel does so from the start where LABKIT_RECORDS is set.

        Args:
            on: False: keep no more.
            person: who measures; None: what LABKIT_NAME says, if it is set.
        """
        self._session.keep, self._session.person = on, person
        self._keep.value, self._person.value = on, person or ""
        self._show()

    def save(self, path: str | Path | None = None) -> Path:
        """Write what is shown, with all raw samples, as JSON.

        Args:
            path: as in `labkit.Comparison.save`.

        Raises:
            LabkitError: there is nothing yet.
            OSError: as `labkit.Comparison.save`.
        """
        return self._session.save(path)

    # How it gets on the screen.

    def _follow(self) -> None:
        self._show()
        if not self._ticker.start():
            self.wait()

    def _tick(self) -> float | None:
        try:
            if self._session.poll():
                self._show_sometimes()
            if self._session.running:
                return _POLL_S
        except BaseException as why:
            # Raised any further it would end the kernel's event loop.
            self._session.stop()
            self._session.error = f"{type(why).__name__}: {why}"
        self._show(picture=True)
        return None

    def _show_sometimes(self) -> None:
        pause_s = max(self._paint_every_s, _PAINT_PAUSE * self._paint_took_s)
        if time.monotonic() - self._painted_s >= pause_s:
            self._show(picture=True)

    def _handle(self, action: Callable[[], None]) -> None:
        """Do what a button says; an error is shown on the panel, where the reader looks."""
        try:
            action()
        except Exception as why:
            self._session.error = f"{type(why).__name__}: {why}"
            self._show()

    def _on_run(self, _: object = None) -> None:
        def run() -> None:
            self._session.predict(self._prediction.value)
            self.start()

        self._handle(run)

    def _on_sweep(self, _: object = None) -> None:
        def sweep() -> None:
            self._session.predict(self._prediction.value)
            self.sweep()

        self._handle(sweep)

    def _on_stop(self, _: object = None) -> None:
        self._handle(self.stop)

    def _on_value(self, name: str, value: Any) -> None:
        def change() -> None:
            self._session.set(**{name: value})
            self._session.error = ""
            self._show()

        self._handle(change)

    def _on_keep(self, _: object = None) -> None:
        name = self._person.value.strip() or None
        self._handle(partial(self.keep, on=self._keep.value, person=name))

    def _build(self) -> None:
        session, experiment = self._session, self._session.experiment
        about = (experiment.__doc__ or "").strip().partition("\n\n")[0]
        title = f"<h4>{escape(experiment.name)}</h4><p>{escape(about)}</p>"
        self._controls = {
            name: make_control(parameter, session.values[name], partial(self._on_value, name))
            for name, parameter in experiment.parameters.items()
        }
        self._question = widgets.HTML()
        self._prediction = widgets.Text(
            description="prediction",
            placeholder="such as 2 or 0.5",
            tooltip="How many times as fast as the baseline the last variant will be",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="210px"),
        )
        swept = [
            (name.replace("_", " "), name)
            for name in experiment.parameters
            if len(session.sweep_values(name)) > 1
        ]
        self._run_button = _button("Run", "Measure with these values", "primary", self._on_run)
        self._stop_button = _button("Stop", "End the run, keep what is there", "", self._on_stop)
        self._sweep_button = _button("Sweep", "Measure over a range of values", "", self._on_sweep)
        self._sweep_over = widgets.Dropdown(
            options=swept,
            description="over",
            tooltip="The parameter that a sweep varies",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="170px"),
        )
        self._progress, self._stage = widgets.HTML(), _live()
        self._said, self._message = _live(), widgets.HTML()
        self._said.add_class(frontend.UNSEEN)
        # The intervals, the times, the memory, the frontier; a sweep takes the first.
        self._pictures = [
            widgets.Image(format="png", layout=widgets.Layout(display="none")) for _ in range(4)
        ]
        self._words = widgets.HTML()
        self._words.add_class(frontend.WORDS)
        self._verdict, self._table, self._notes = _live(), widgets.HTML(), widgets.HTML()
        self._why = widgets.HTML()
        self._downloads = widgets.HTML()
        self._keep = widgets.Checkbox(
            value=session.keep,
            description="keep a record",
            tooltip=f"Write each run or sweep to a file in {records_folder()} when it has ended",
            indent=False,
            layout=widgets.Layout(width="150px"),
        )
        self._person = widgets.Text(
            description="name (optional)",
            tooltip="Stands in the record; leave it empty to stay unnamed",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="260px"),
        )
        self._keep.observe(self._on_keep, "value")
        self._person.observe(self._on_keep, "value")
        self._kept = _live()
        sweep_controls = [self._sweep_button, self._sweep_over] if swept else []
        ask = [self._question, self._prediction] if session.predict_first else []
        self.widget = widgets.VBox(
            [
                widgets.HTML(frontend.head() + title),
                widgets.HBox(list(self._controls.values()), layout=widgets.Layout(**_ROW)),
                widgets.VBox(ask),
                widgets.HBox(
                    [self._run_button, self._stop_button, *sweep_controls],
                    layout=widgets.Layout(**_ROW),
                ),
                widgets.HBox([self._keep, self._person], layout=widgets.Layout(**_ROW)),
                widgets.HBox([self._progress, self._stage], layout=widgets.Layout(**_ROW)),
                self._said,
                self._message,
                self._kept,
                widgets.HBox(self._pictures, layout=widgets.Layout(**_ROW)),
                self._words,
                self._verdict,
                self._table,
                self._why,
                self._notes,
                widgets.HTML(f"<p>{escape(machine().line())}</p>"),
                self._downloads,
            ]
        )
        self.widget.add_class(frontend.PANEL)
        frontend.in_order(self.widget)

    def _show(self, *, picture: bool = False) -> None:
        with self._lock:
            self._show_state()
            self._show_result()
            if picture:
                began_s = time.monotonic()
                self._paint()
                self._painted_s = time.monotonic()
                self._paint_took_s = self._painted_s - began_s

    def _show_state(self) -> None:
        session = self._session
        for button in (self._run_button, self._sweep_button):
            _mark(button, frontend.OFF, on=session.running)
        _mark(self._stop_button, frontend.OFF, on=not session.running)
        self._progress.value = (
            '<progress max="1" aria-label="share of the run that is done" '
            f'value="{session.progress:.3f}"></progress>'
        )
        _mark(self._stage, frontend.QUIET, on=session.running)
        self._stage.value = f"<p>{escape(self._state_text())}</p>"
        self._say()
        error = f'<p role="alert" class="labkit-error">{escape(session.error)}</p>'
        self._message.value = error if session.error else ""
        self._kept.value = (
            f'<p role="alert" class="labkit-error">{escape(session.not_kept)}</p>'
            if session.not_kept
            else f"<p>{escape(session.kept)}</p>" * bool(session.kept)
        )
        self._person.layout.display = None if session.keep else "none"
        names = session.experiment.known_names
        last, first = (
            (f"<b>{escape(n)}</b>" for n in (names[-1], names[0]))
            if names
            else (
                "the last variant",
                "the baseline",
            )
        )
        self._question.value = (
            f"<p>Predict: how many times as fast as {first} will {last} be? "
            "(2: twice as fast; 0.5: half as fast)</p>"
        )

    def _say(self) -> None:
        """Tell a screen reader how a run goes on; at its end the verdict is announced itself."""
        if not self._session.running:
            self._said.value, self._said_s = "", 0.0
        elif (now_s := time.monotonic()) - self._said_s >= _SAY_S:
            self._said_s = now_s
            self._said.value = f"<p>running, {self._session.left_s:.0f} s left at most</p>"

    def _state_text(self) -> str:
        session = self._session
        if session.status is Status.QUEUED:
            return session.stage
        if session.running:
            return f"{session.stage}; {session.left_s:.0f} s left at most"
        comparison = session.comparison
        if comparison is None:
            return "ready"
        if session.error:
            return "failed"
        words_for = {
            "answered": "done",
            "budget": "the time is used up",
            "stopped": "stopped; what was measured is kept",
            "failed": "failed; what was measured is kept",
        }
        ended = "stopped" if session.stopped else comparison.ended
        words = words_for.get(ended, ended)
        if session.changed_since:
            words += "; the controls have moved since: this is the result for the values below"
        if session.sweep_result is not None:
            return f"{words} ({len(session.sweep_result)} points)"
        return f"{words} ({comparison.rounds} rounds in {comparison.duration_s:.1f} s)"

    def _show_result(self) -> None:
        session = self._session
        sweep, comparison = session.sweep_result, session.comparison
        if comparison is None:
            return
        points = len(sweep) if sweep is not None else 0
        state = (session.running, points, comparison.started_utc, comparison.rounds, session.score)
        if state == self._seen:
            return
        self._seen = state
        sentences = list(sweep.sentences if sweep is not None else comparison.sentences)
        sentences += [session.score] if session.score else []
        # Announced once, at the end: a screen reader must not read every round.
        _mark(self._verdict, frontend.QUIET, on=session.running)
        self._verdict.value = '<div class="labkit-verdict">' + (
            "".join(f"<p>{escape(s)}</p>" for s in sentences) + "</div>"
        )
        self._table.value = (
            tables.sweep_table_html(sweep) if sweep is not None else tables.table_html(comparison)
        )
        whole = sweep is None and not session.running
        self._why.value = tables.explanations_html(comparison) if whole else ""
        self._notes.value = tables.caveats_html(comparison.caveats)
        self._downloads.value = "" if session.running else _downloads(sweep or comparison)

    def _paint(self) -> None:
        from labkit.figures import to_png

        figures = self._figures()
        for picture, figure in zip_longest(self._pictures, figures):
            if figure is not None:
                picture.value = to_png(figure)
            # Only what has changed is sent.
            picture.layout.display = "none" if figure is None else None
        # While it runs the words would be old before they are read.
        ended = bool(figures) and not self._session.running
        lines = "".join(f"<p>{escape(figure.description)}</p>" for figure in figures * ended)
        self._words.value = (
            f"<details><summary>The plots in words</summary>{lines}</details>" * ended
        )

    def _figures(self) -> list[Picture]:
        from labkit import plots, sweep_plots

        session = self._session
        sweep = session.sweep_result
        if sweep is not None:
            return [sweep_plots.sweep_figure(sweep)] if len(sweep) else []
        if session.comparison is not None:
            return plots.live_figures(session.comparison)
        return []

    # Where widgets do not run.

    def __repr__(self) -> str:
        return f"Panel({self._session.experiment.name})"

    def _static_html(self) -> str:
        session = self._session
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(session.values[name]))}</td>'
            f"<td>{escape(allowed(parameter))}</td></tr>"
            for name, parameter in session.experiment.parameters.items()
        )
        head = "<tr><th>control</th><th>stands at</th><th>may be</th></tr>"
        text = (
            f"<p><strong>Panel: {escape(session.experiment.name)}</strong></p>"
            f"<table>{head}{rows}</table>"
            "<p>This panel is live where its notebook runs: run this cell in JupyterLab, write "
            "down a prediction, press Run.</p>"
        )
        result = session.sweep_result or session.comparison
        if result is None:
            return text
        images = "".join(figure.html() for figure in self._figures())
        return f"{text}{images}{result._repr_html_()}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle = dict(self.widget._repr_mimebundle_() or {})
        return {**bundle, "text/plain": repr(self), "text/html": self._static_html()}


def _live() -> widgets.HTML:
    """A text that is announced when it changes."""
    made = widgets.HTML()
    made.add_class(frontend.LIVE)
    return made


def _mark(widget: widgets.DOMWidget, name: str, *, on: bool) -> None:
    """Give a widget a class of `labkit.frontend`, or take it away."""
    (widget.add_class if on else widget.remove_class)(name)


def _button(
    description: str, tooltip: str, style: str, on_click: Callable[[object], None]
) -> widgets.Button:
    button = widgets.Button(
        description=description,
        tooltip=tooltip,
        button_style=style,
    )
    button.on_click(on_click)
    return button


def _downloads(result: Comparison | Sweep) -> str:
    """Links that carry the data themselves: there is no file on the server to clean up."""
    name = (result.title or "comparison").replace(" ", "-")
    buffer = io.StringIO()
    csv.writer(buffer).writerows(result.sample_rows())
    links = [
        _link("Download samples (CSV)", f"{name}.csv", "text/csv", buffer.getvalue()),
        _link("Download everything (JSON)", f"{name}.json", "application/json", result.to_json()),
    ]
    return f"<p>{''.join(links)}</p>"


def _link(text: str, filename: str, kind: str, content: str) -> str:
    data = base64.b64encode(content.encode()).decode()
    return f'<a download="{escape(filename)}" href="data:{kind};base64,{data}">{text}</a>'
