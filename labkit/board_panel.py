"""The board live: it looks into its folder every few seconds.

As on a panel, everything that a control does is a public method, and what is shown is set as
traits of widgets. The folder is looked at on the kernel's own event loop, between cells.
"""

from __future__ import annotations

import base64
import threading
import time
import weakref
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from labkit import frontend, tables
from labkit.ticks import Ticker

if TYPE_CHECKING:
    from collections.abc import Callable

    from labkit.board_views import Question, View
    from labkit.boards import Board
    from labkit.figures import Picture

_LOOK_S = 2.0
# Looking and painting take at most a quarter of a core: a slow folder must not hold up the kernel.
_REST = 3

# A long list of facts may take several lines.
_STYLE = """<style>
.labkit-board td:last-child { white-space: normal !important; }
.labkit-board.labkit-board h4 { margin-top: 8px; }
</style>"""
_ROW = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}

# The last panel of each folder: a cell that is run again must not leave one behind that looks on.
_panels: weakref.WeakValueDictionary[str, BoardPanel] = weakref.WeakValueDictionary()


class BoardPanel:
    """A board with controls: the folder, the experiment, its parameters, the variant.

    Args:
        board: what is shown first.

    >>> from labkit.boards import board
    >>> panel = board("nowhere").panel()
    >>> panel.watching
    False
    >>> panel.view is None
    True
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.view: View | None = None
        self._question: Question | None = None
        self._lock = threading.RLock()
        self._ticker = Ticker(self._tick)
        self._filling = False
        self._seen: tuple[Board, Question | None] | None = None
        self._build()
        self._show()
        self._take_over()
        self._watch.value = self._ticker.start()

    # What a person can do, each a method.

    @property
    def watching(self) -> bool:
        """Whether it looks for new records by itself."""
        return bool(self._watch.value)

    def watch(self, *, on: bool = True) -> None:
        """Look for new records every few seconds, or stop that.

        Without an event loop, outside of a notebook, nothing looks by itself: call `look`.
        """
        self._watch.value = on and self._ticker.start()

    def look(self) -> bool:
        """Look into the folder now.

        Returns:
            Whether anything was new.
        """
        with self._lock:
            before = self.board
            self.board = before.again()
            self._show()
            return self.board is not before

    def open(self, folder: str | Path) -> None:
        """Show the records of another folder."""
        with self._lock:
            if not str(folder).strip():
                raise ValueError("give the path of a folder of records, such as ../data/class")
            self.board = type(self.board)(Path(folder).expanduser()).again()
            self._folder.value = str(folder)
            self._take_over()
            self._show()

    def choose(
        self,
        experiment: str | None = None,
        parameters: str | None = None,
        variant: str | None = None,
    ) -> None:
        """Show another question; arguments and errors as of `labkit.boards.Board.view`."""
        with self._lock:
            self._question = self.board.view(experiment, parameters, variant).question
            self._show()

    # How it gets on the screen.

    def _take_over(self) -> None:
        key = str(self.board.folder.absolute())
        previous = _panels.get(key)
        if previous is not None and previous is not self:
            previous.watch(on=False)
        _panels[key] = self

    def _tick(self) -> float | None:
        if not self._watch.value:
            return None
        began_s = time.monotonic()
        try:
            self.look()
            self._message.value = ""
        except Exception as why:
            # Raised any further it would end the kernel's event loop.
            self._say(why)
        return max(_LOOK_S, _REST * (time.monotonic() - began_s))

    def _say(self, why: Exception) -> None:
        self._message.value = (
            f'<p role="alert" class="labkit-error">{escape(f"{type(why).__name__}: {why}")}</p>'
        )

    def _handle(self, action: Callable[[], object]) -> None:
        """Do what a control says; an error is shown where the reader looks."""
        if self._filling:
            return
        try:
            self._message.value = ""
            action()
        except Exception as why:
            self._say(why)

    def _on_folder(self, change: dict[str, Any]) -> None:
        if Path(change["new"].strip() or ".") != self.board.folder:
            self._handle(lambda: self.open(change["new"].strip()))

    def _on_experiment(self, _: object = None) -> None:
        self._handle(lambda: self.choose(self._experiment.value))

    def _on_parameters(self, _: object = None) -> None:
        self._handle(lambda: self.choose(self._experiment.value, self._parameters.value))

    def _on_pair(self, _: object = None) -> None:
        def show() -> None:
            self._question = self._pair.value
            self._show()

        self._handle(show)

    def _on_watch(self, _: object = None) -> None:
        self._handle(lambda: self.watch(on=self._watch.value))

    def _build(self) -> None:
        def control(kind: Any, name: str, tooltip: str, width: str, **given: Any) -> Any:
            return kind(
                description=name,
                tooltip=tooltip,
                style={"description_width": "initial"},
                layout=widgets.Layout(width=width, margin="2px 16px 2px 0"),
                **given,
            )

        self._folder = control(
            widgets.Text,
            "folder",
            "Where the records are: the shared folder, or the files that were collected",
            "420px",
            value=str(self.board.folder),
            continuous_update=False,
        )
        self._watch = control(
            widgets.Checkbox,
            "look for new records",
            "Look into the folder every few seconds",
            "200px",
            value=False,
            indent=False,
        )
        self._experiment = control(
            widgets.Dropdown, "experiment", "Which experiment to show", "300px"
        )
        self._parameters = control(
            widgets.Dropdown, "parameters", "Machines are compared with equal parameters", "320px"
        )
        self._pair = control(
            widgets.Dropdown, "variant", "Which variant against which baseline", "320px"
        )
        for box, act in (
            (self._folder, self._on_folder),
            (self._watch, self._on_watch),
            (self._experiment, self._on_experiment),
            (self._parameters, self._on_parameters),
            (self._pair, self._on_pair),
        ):
            box.observe(act, "value")
        self._message = widgets.HTML()
        self._about = widgets.HTML()
        self._about.add_class(frontend.LIVE)
        self._parts = [widgets.HTML() for _ in range(3)]
        self.widget = widgets.VBox(
            [
                widgets.HTML(f"{frontend.head()}{_STYLE}<h4>The board</h4>"),
                widgets.HBox([self._folder, self._watch], layout=widgets.Layout(**_ROW)),
                widgets.HBox(
                    [self._experiment, self._parameters, self._pair],
                    layout=widgets.Layout(**_ROW),
                ),
                self._message,
                self._about,
                *self._parts,
            ]
        )
        self.widget.add_class(frontend.PANEL)
        frontend.in_order(self.widget)
        self.widget.add_class("labkit-board")

    def _show(self) -> None:
        with self._lock:
            questions = self.board.questions
            if self._question not in questions:
                self._question = self.board.view().question if questions else None
            if self._seen == (self.board, self._question):
                return
            self._seen = (self.board, self._question)
            self.view = self.board.view_of(self._question) if self._question else None
            self._fill(questions)
            self._about.value = "".join(f"<p>{escape(line)}</p>" for line in self.board.sentences)
            parts = _parts(self.view) if self.view else []
            for number, part in enumerate(self._parts):
                part.value = parts[number] if number < len(parts) else ""

    def _fill(self, questions: tuple[Question, ...]) -> None:
        """Let the controls offer what there is, and stand at what is shown."""
        chosen = self._question
        here = [q for q in questions if chosen and q.experiment == chosen.experiment]
        there = [q for q in here if chosen and q.parameters == chosen.parameters]
        offers: list[tuple[Any, list[tuple[str, Any]], Any]] = [
            (
                self._experiment,
                [(name, name) for name in dict.fromkeys(q.experiment for q in questions)],
                chosen.experiment if chosen else None,
            ),
            (
                self._parameters,
                [(text or "none", text) for text in dict.fromkeys(q.parameters for q in here)],
                chosen.parameters if chosen else None,
            ),
            (self._pair, [(q.pair, q) for q in there], chosen),
        ]
        self._filling = True
        try:
            for box, options, value in offers:
                # Setting them again would close a list that somebody has open.
                if list(box.options) != options:
                    box.options = options
                if box.value != value:
                    box.value = value
                box.disabled = len(options) < 2
        finally:
            self._filling = False

    # Where widgets do not run.

    def __repr__(self) -> str:
        return f"BoardPanel({str(self.board.folder)!r})"

    def _static_html(self) -> str:
        lines = [*self.board.sentences, *(self.view.sentences if self.view else [])]
        return (
            "<p><strong>The board</strong>, live where its notebook runs: run this cell in "
            "JupyterLab.</p>" + "".join(f"<p>{escape(line)}</p>" for line in lines)
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle = dict(self.widget._repr_mimebundle_() or {})
        return {**bundle, "text/plain": repr(self), "text/html": self._static_html()}


def _parts(view: View) -> list[str]:
    """The machines, the guesses and the facts, each a picture, sentences, and a table beneath."""
    return [
        _part(
            "The same experiment on each machine",
            view.plot(),
            view.spread_sentences,
            tables.result_html(*view.table(), str(view.question)),
        ),
        _part(
            "Guesses and results",
            view.guesses_plot() if view.guesses else None,
            view.guess_sentences,
            tables.result_html(*view.guesses_table(), "The closest guess first")
            if view.guesses
            else "",
        ),
        _part(
            "What goes with the differences",
            view.facts_plot() if view.splits else None,
            view.fact_sentences,
            "",
        ),
    ]


def _part(title: str, figure: Picture | None, sentences: list[str], table: str) -> str:
    from labkit import figures

    words = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    picture = ""
    if figure is not None:
        png = base64.b64encode(figures.to_png(figure)).decode()
        about = escape(f"{title}: {' '.join(sentences)}")
        picture = f'<img alt="{about}" src="data:image/png;base64,{png}">'
    return f"<h4>{escape(title)}</h4>{picture}{words}{table}"
