"""A few questions at the end of a notebook, with a word on every answer.

Everything a button does is a public method here, which runs without a front end. What is answered
is kept by `labkit.progress`, on this computer alone; nothing of it is in the saved notebook.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from labkit import frontend, progress
from labkit.files import folder_above

if TYPE_CHECKING:
    from collections.abc import Sequence

_FOLDER = Path("data", "quizzes")
_STYLE = """
.labkit-quiz { border: 1px solid var(--jp-border-color2, #ccc); padding: 8px 12px;
  max-width: 760px; color: var(--jp-ui-font-color1, inherit); }
.labkit-quiz .widget-html-content, .labkit-quiz .jupyter-widgets-html-content {
  line-height: 1.4; white-space: normal; }
.labkit-quiz h4 { margin: 0; }
.labkit-quiz h5 { margin: 8px 0 2px 0; font-size: inherit; font-weight: 600; }
.labkit-quiz p { margin: 2px 0; }
.labkit-quiz .widget-radio-box label { height: auto; line-height: 1.4; white-space: normal;
  padding: 2px 0; display: flex; flex-direction: row-reverse; justify-content: flex-end; }
.labkit-quiz .widget-radio-box input { flex: none; width: 16px; height: 16px;
  margin: 1px 8px 0 2px; }
.labkit-quiz :focus-visible { outline: 3px solid currentColor !important; outline-offset: 1px; }
.labkit-quiz .widget-radio { height: auto; }
"""


@dataclass(frozen=True)
class Choice:
    """One of the answers to choose from.

    Attributes:
        text: of the answer.
        correct: whether it is right.
        feedback: what to say to whoever chose it.
    """

    text: str
    correct: bool
    feedback: str


@dataclass(frozen=True)
class Question:
    """A question with its answers, of which one is right."""

    text: str
    choices: tuple[Choice, ...]


class Quiz:
    """Questions with radio buttons, a Check button each, and the score.

    Args:
        name: under which the answers are kept.
        questions: one or more.

    >>> right = Choice("4", correct=True, feedback="Yes: two twos.")
    >>> wrong = Choice("22", correct=False, feedback="These are numbers, not texts.")
    >>> quiz = Quiz("sums", [Question("2 + 2?", (wrong, right))])
    >>> quiz.answer(0, 0)
    'Not right. These are numbers, not texts.'
    >>> quiz.answer(0, 1)
    'Right. Yes: two twos.'
    >>> quiz.score
    '1 of 1 right, 0 at the first try.'
    """

    def __init__(self, name: str, questions: Sequence[Question]) -> None:
        self.name = name
        self.questions = tuple(questions)
        self._chosen: list[list[int]] = [[] for _ in self.questions]
        self._build()

    @property
    def score(self) -> str:
        """How many questions are answered rightly now, and how many were at once."""
        right = sum(self._is_right(n, tries[-1:]) for n, tries in enumerate(self._chosen))
        at_once = sum(self._is_right(n, tries[:1]) for n, tries in enumerate(self._chosen))
        left = self._chosen.count([])
        text = f"{right} of {len(self.questions)} right, {at_once} at the first try"
        return f"{text}; {left} not answered yet." if left else f"{text}."

    def answer(self, question: int, choice: int) -> str:
        """Choose an answer and check it, as a click on both does.

        Args:
            question: its number, from 0.
            choice: its number among the answers to the question, from 0.

        Returns:
            Whether it is right, and why, in words.

        Raises:
            ValueError: there is no such question or answer.
        """
        asked = self._question(question)
        if choice not in range(len(asked.choices)):
            raise ValueError(
                f"question {question} has no answer {choice!r}; its {len(asked.choices)} answers "
                f"are numbered from 0 to {len(asked.choices) - 1}"
            )
        chosen = asked.choices[choice]
        self._chosen[question].append(choice)
        notice = progress.keep_answer(
            progress.Answer(
                self.name,
                asked.text,
                chosen.text,
                chosen.correct,
                tuple(each.text for each in self.questions),
            )
        )
        said = f"{'Right' if chosen.correct else 'Not right'}. {chosen.feedback}"
        if self._radios[question].index != choice:
            self._radios[question].index = choice
        mark = "\u2713" if chosen.correct else "\u2717"
        self._feedback[question].value = _line(said, mark)
        self._score.value = _line(self.score)
        self._notice.value = _line(notice) if notice else ""
        return said

    def check(self, question: int) -> None:
        """Check what is chosen with the radio buttons; says so where nothing is.

        Args:
            question: its number, from 0.

        Raises:
            ValueError: there is no such question.
        """
        self._question(question)
        chosen = self._radios[question].index
        if chosen is None:
            self._feedback[question].value = _line("Choose an answer first.")
        else:
            self.answer(question, chosen)

    def _question(self, number: int) -> Question:
        if number not in range(len(self.questions)):
            raise ValueError(
                f"there is no question {number!r}; the {len(self.questions)} questions of "
                f"{self.name} are numbered from 0 to {len(self.questions) - 1}"
            )
        return self.questions[number]

    def _is_right(self, question: int, tries: list[int]) -> bool:
        return any(self.questions[question].choices[choice].correct for choice in tries)

    def _build(self) -> None:
        self._radios, self._feedback, rows = [], [], []
        for number, question in enumerate(self.questions):
            radios = widgets.RadioButtons(
                options=[choice.text for choice in question.choices],
                index=None,
                layout=widgets.Layout(width="auto"),
            )
            button = widgets.Button(
                # With its number: a list of the page's buttons would say "Check" four times.
                description=f"Check answer {number + 1}",
                tooltip=question.text,
                layout=widgets.Layout(width="150px"),
            )
            button.on_click(partial(self._on_check, number))
            feedback = _live("")
            self._radios.append(radios)
            self._feedback.append(feedback)
            heading = widgets.HTML(f"<h5>{number + 1}. {_marked(question.text)}</h5>")
            row = widgets.VBox([heading, radios, button, feedback])
            row.add_class("labkit-question")
            rows.append(row)
        self._score = _live(_line(self.score))
        self._notice = _live("")
        where = "Answers are kept on this computer only, for <code>lab.summary()</code>."
        kept = f"<p>{where}</p>" if progress.folder() is not None else ""
        self.widget = widgets.VBox(
            [
                widgets.HTML(f"{_head()}<h4>Quiz: {escape(self.name)}</h4>"),
                *rows,
                self._score,
                widgets.HTML(kept),
                self._notice,
            ]
        )
        self.widget.add_class("labkit-quiz")
        frontend.in_order(self.widget)

    def _on_check(self, number: int, _: object = None) -> None:
        self.check(number)

    # Where widgets do not run.

    def __repr__(self) -> str:
        return f"Quiz({self.name}: {len(self.questions)} questions)"

    def __str__(self) -> str:
        lines = [f"Quiz: {self.name}"]
        for number, question in enumerate(self.questions, start=1):
            lines += ["", f"{number}. {question.text}"]
            lines += [f"   ( ) {choice.text}" for choice in question.choices]
        return "\n".join(lines)

    def _static_html(self) -> str:
        asked = "".join(
            f"<details><summary>{number}. {_marked(question.text)}</summary><ul>"
            + "".join(f"<li>{_marked(choice.text)}</li>" for choice in question.choices)
            + "</ul></details>"
            for number, question in enumerate(self.questions, start=1)
        )
        return (
            f"<p><strong>Quiz: {escape(self.name)}</strong></p>{asked}"
            "<p>To answer, run this cell in JupyterLab.</p>"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle = dict(self.widget._repr_mimebundle_() or {})
        return {**bundle, "text/plain": str(self), "text/html": self._static_html()}


def quiz(name: str | Path) -> Quiz:
    """The quiz of a notebook.

    The answers to a question come in another order than in the file, always in the same one.

    Args:
        name: such as "05-pruning": looked for in data/quizzes beside the folder of the notebook
            (or in, or above it); or the path of a JSON file: a list of questions, each with
            "question", "type" ("multiple_choice") and "answers", each of these with "answer",
            "correct" (true for one of them) and "feedback".

    Returns:
        A cell shows it; `Quiz.answer` answers without a front end.

    Raises:
        FileNotFoundError: there is no such quiz.
        ValueError: the file is none like that.
    """
    path = _find(name)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, list) or not data:
        raise ValueError(f"{path}: a list of questions is needed, and at least one")
    return Quiz(path.stem, [_read(item, f"{path}, question {n}") for n, item in enumerate(data)])


def quiz_names() -> list[str]:
    """The quizzes that `quiz` finds from the present folder."""
    place = folder_above(_FOLDER)
    return sorted(path.stem for path in place.glob("*.json")) if place else []


def _find(name: str | Path) -> Path:
    given = Path(name)
    if given.suffix == ".json":
        if not given.is_file():
            raise FileNotFoundError(f"there is no quiz {given} (looked from {Path.cwd()})")
        return given
    place = folder_above(_FOLDER)
    if place is None:
        raise FileNotFoundError(
            f"no quiz {str(name)!r}: there is no folder {_FOLDER} in {Path.cwd()} or above it; "
            "give the path of a JSON file"
        )
    found = place / f"{name}.json"
    if not found.is_file():
        names = ", ".join(quiz_names()) or "none"
        raise FileNotFoundError(f"no quiz {str(name)!r} in {place}; there are {names}")
    return found


def _read(item: Any, where: str) -> Question:
    try:
        if item["type"] != "multiple_choice":
            raise ValueError(f"{where}: its type is {item['type']!r}, not 'multiple_choice'")
        choices = tuple(
            Choice(str(a["answer"]), a["correct"] is True, str(a["feedback"]))
            for a in item["answers"]
        )
        text = str(item["question"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{where} needs question, type and answers, each answer answer, correct and "
            f"feedback ({type(error).__name__}: {error})"
        ) from None
    if len({choice.text for choice in choices}) < max(2, len(choices)):
        raise ValueError(f"{where}: two different answers or more are needed, none twice")
    right = sum(choice.correct for choice in choices)
    if right != 1:
        raise ValueError(f"{where}: one answer has to be correct, not {right}")
    # People write the right answer first. Not by chance: the order stands in the notebook, and is
    # the same with every version of Python.
    return Question(text, tuple(sorted(choices, key=lambda choice: _digest(text, choice.text))))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _marked(text: str) -> str:
    """As HTML, `code` in its own letters."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _line(text: str, mark: str = "") -> str:
    seen = f'<span aria-hidden="true">{mark} </span>' if mark else ""
    return f"<p>{seen}{_marked(text)}</p>"


def _live(value: str) -> widgets.HTML:
    """Text that is announced when it changes: quiz.js says so to the page."""
    widget = widgets.HTML(value)
    widget.add_class("labkit-live")
    return widget


@cache
def _head() -> str:
    script = Path(__file__).with_name("quiz.js").read_text(encoding="utf-8")
    return f'<style onload="{escape(script)}">{_STYLE}</style>'
