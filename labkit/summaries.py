"""A page at the end: what somebody did in the lab, from what `labkit.progress` kept.

One file of HTML that needs nothing else: pictures are in it, there is no script, and nothing is
fetched. It prints on two pages of A4.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import quote

from labkit import progress, tables
from labkit.machines import machine
from labkit.statistics import Verdict
from labkit.sweeps import Sweep
from labkit.units import format_ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.figure import Figure

    from labkit.progress import Answer, PanelResult, PanelRun, Progress

_NAME = "labkit-summary.html"
_MARK = '<meta name="generator" content="labkit summary">'
# Two printed pages, however much was done, with pictures that can be read.
_MOST_ROWS, _MOST_PICTURES, _MOST_VERDICTS, _MOST_OTHERS, _MOST_STEPS = 10, 2, 5, 4, 5
# From here on a habit can be told from chance.
_ENOUGH = 5
_DPI = 150

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --soft: #595959;
  --line: #c8c8c8; --link: #0057a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --soft: #b0b0b0;
  --line: #4a4a4a; --link: #8ec5ff; } }
body { font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 50rem; margin: 0 auto; padding: 1.5rem 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 0.3rem; }
h2 { font-size: 1.2rem; margin: 1.6rem 0 0.4rem; border-bottom: 1px solid var(--line); }
p { margin: 0.4rem 0; }
.about, footer, caption { color: var(--soft); font-size: 0.9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; font-size: 0.92rem; }
caption { text-align: left; padding-bottom: 0.2rem; }
th, td { text-align: left; vertical-align: top; padding: 0.15rem 0.8rem 0.15rem 0;
  border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; overflow-wrap: break-word; }
figure { margin: 0.8rem 0; }
figcaption { font-weight: 600; overflow-wrap: break-word; }
figcaption .values { font-weight: 400; color: var(--soft); }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
ul, ol { margin: 0.3rem 0; padding-left: 1.4rem; }
footer { margin-top: 1.6rem; border-top: 1px solid var(--line); padding-top: 0.4rem; }
@page { size: A4; margin: 12mm 14mm; }
@media print {
  :root { color-scheme: light; --ink: #000000; --paper: #ffffff; --soft: #444444;
    --line: #bbbbbb; --link: #000000; }
  html { font-size: 9pt; } body { font-size: 1rem; line-height: 1.25; max-width: none; padding: 0; }
  h2 { margin-top: 1rem; break-after: avoid; }
  th, td { padding-top: 0; padding-bottom: 0; }
  figure, tr, li { break-inside: avoid; } figure { margin: 0.5rem 0; }
  figure img { max-height: 58mm; width: auto; }
  .result { display: flex; flex-wrap: wrap; gap: 0 6mm; } .result ul { flex: 1 1 55mm; }
  figcaption, caption { break-after: avoid; }
}
"""


@dataclass(frozen=True)
class Summary:
    """The page that `labkit.summary` wrote.

    Attributes:
        path: of the page.
        sentences: what is in it, and what became of an older page, in words.
    """

    path: Path
    sentences: tuple[str, ...]

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return f"Summary({self.path.name})"

    def __str__(self) -> str:
        return "\n".join([f"{self.path}:", *self.sentences])

    def _repr_html_(self) -> str:
        shown = escape(self.path.name)
        with contextlib.suppress(ValueError):  # elsewhere: Jupyter serves only what is below
            below = self.path.resolve().relative_to(Path.cwd().resolve()).as_posix()
            shown = f'<a href="{escape(quote(below))}" target="_blank">{shown}</a>'
        lines = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.sentences)
        return f"<p>Your summary: {shown}</p><ul>{lines}</ul>"


def summary(path: str | Path | None = None) -> Summary:
    """Write one page about what was done in the lab: quizzes, predictions, results, next steps.

    It is made of what quizzes and panels kept on this computer (`labkit.progress`). It names the
    machine, and nobody, unless the environment variable LABKIT_NAME gives a name.

    Args:
        path: of the page, or a folder for it; None: labkit-summary.html in the present folder. An
            older summary there is replaced, any other file is not.

    Returns:
        What a notebook shows as a link.

    Raises:
        FileExistsError: there is a file that is no summary of labkit.
        OSError: the page cannot be written there.
    """
    target = Path(_NAME if path is None else path)
    target = target / _NAME if target.is_dir() else target
    known = target.exists()
    if known and not _is_ours(target):
        raise FileExistsError(
            f"{target} exists and is no summary of labkit, so it stays as it is: give another "
            'name, such as lab.summary("my-summary.html")'
        )
    kept = progress.read()
    page = page_html(kept)
    _replace(target, page)
    done = [
        "The summary that was there is replaced." if known else "A new page.",
        *_in_short(kept),
    ]
    return Summary(target, tuple(done))


def page_html(kept: Progress) -> str:
    """The page as text.

    Args:
        kept: of `labkit.progress.read`.
    """
    person = os.environ.get("LABKIT_NAME", "").strip()
    today = datetime.now(UTC).astimezone().strftime("%Y-%m-%d")
    title = f"{person}: what I did in the lab" if person else "What I did in the lab"
    sections = [
        ("Notebooks", _notebooks(kept)),
        ("Predictions", _predictions(kept)),
        ("Results", _results(kept)),
        ("What to do next", _list(_next_steps(kept))),
    ]
    body = "".join(f"<section><h2>{name}</h2>{inside}</section>" for name, inside in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{_MARK}\n"
        # Says to the browser what is true anyway: nothing is fetched or run.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<header><h1>{escape(title)}</h1><p class="about">labkit, {today}. '
        f"{escape(machine().line())}</p></header>\n<main>{body}</main>\n"
        f"<footer>{_fine_print(kept)}</footer>\n</body>\n</html>\n"
    )


# Quizzes.


@dataclass(frozen=True)
class _Score:
    """Of one quiz, as its newest version asks it."""

    asked: tuple[str, ...]
    first: Mapping[str, Answer]
    last: Mapping[str, Answer]

    @property
    def right(self) -> int:
        return sum(answer.correct for answer in self.last.values())

    @property
    def right_at_once(self) -> int:
        return sum(answer.correct for answer in self.first.values())

    @property
    def wrong(self) -> list[Answer]:
        return [answer for answer in self.last.values() if not answer.correct]


def _scores(answers: Sequence[Answer]) -> dict[str, _Score]:
    by_quiz: dict[str, list[Answer]] = {}
    for answer in answers:
        by_quiz.setdefault(answer.quiz, []).append(answer)
    scores = {}
    for name, every in sorted(by_quiz.items()):
        asked = every[-1].questions
        # A question that was taken out of the quiz, or worded anew, no longer counts.
        given = [answer for answer in every if answer.question in asked]
        first = {answer.question: answer for answer in reversed(given)}
        scores[name] = _Score(asked, first, {answer.question: answer for answer in given})
    return scores


def _notebooks(kept: Progress) -> str:
    scores = _scores(kept.answers)
    told = ""
    if not scores:
        told = (
            "<p>No quiz is answered yet: the last cell of each notebook asks one "
            '(<code>lab.quiz("00-start-here")</code>).</p>'
        )
    predicted = Counter(run.notebook for run in _first_predictions(kept))
    ran = Counter(result.notebook for result in kept.results)
    # A notebook and its quiz have the same name.
    names = sorted({*scores, *predicted, *ran} - {""}) + [""] * ("" in predicted or "" in ran)
    if not names:
        return told
    rows = []
    for name in names:
        score = scores.get(name)
        of = len(score.asked) if score else 0
        rows.append(
            [
                name or "(notebook not known)",
                f"{score.right} of {of}" if score else "not answered",
                f"{score.right_at_once} of {of}" if score else "",
                str(predicted[name] or ""),
                str(ran[name] or ""),
            ]
        )
    head = ["notebook", "quiz: right", "at the first try", "predictions", "experiments on panels"]
    return told + _table(head, rows, "What is kept of each notebook")


# Predictions.


def _first_predictions(kept: Progress) -> list[PanelRun]:
    """Those that were made before anything with the same values was seen, the newest last."""
    first: dict[tuple[str, str, str], PanelRun] = {}
    for run in kept.runs:
        first.setdefault(_key(run), run)
    return [run for run in first.values() if run.predicted is not None]


def _key(run: PanelRun) -> tuple[str, str, str]:
    return run.notebook, run.experiment, repr(sorted(run.parameters.items()))


def _factor(run: PanelRun) -> float:
    """How many times more was measured than predicted; below 1: less."""
    return run.speedup / (run.predicted or run.speedup)


def _calibration(runs: Sequence[PanelRun]) -> list[str]:
    """How good the predictions were, in sentences."""
    off = [max(_factor(run), 1 / _factor(run)) for run in runs]
    inside = sum(_is_inside(run) for run in runs)
    near, fair = (sum(factor <= most for factor in off) for most in (1.5, 2))
    counts = (
        f"{_count(len(runs), 'prediction')}: {inside} inside the measured interval, {near} within "
        f"1.5x of the result, {fair} within 2x."
    )
    middle = f"Half of them are off by {format_ratio(median(off))} or less."
    said = [counts, *[middle] * (len(runs) > 1)]
    decided = [run for run in runs if run.verdict in (Verdict.FASTER, Verdict.SLOWER)]
    if decided:
        sides = sum(
            (run.verdict == Verdict.FASTER) == ((run.predicted or 1) > 1) for run in decided
        )
        said.append(
            f"Faster or slower: {sides} of {len(decided)} on the right side, where there was a "
            "difference."
        )
    high = sum(_factor(run) < 1 and not _is_inside(run) for run in runs)
    low = sum(_factor(run) > 1 and not _is_inside(run) for run in runs)
    if high or low:
        said.append(f"{high} promised more than came, {low} less.")
    if len(runs) < _ENOUGH:
        said.append(f"That few say little about a habit; {_ENOUGH} or more would.")
    return said


def _is_inside(run: PanelRun) -> bool:
    return run.predicted is not None and run.low <= run.predicted <= run.high


def _off_in_words(run: PanelRun) -> str:
    if _is_inside(run):
        return "inside the interval"
    factor = _factor(run)
    word = "more" if factor > 1 else "less"
    return f"{format_ratio(max(factor, 1 / factor))} {word} than said"


def _predictions(kept: Progress) -> str:
    runs = _first_predictions(kept)
    if not runs:
        return (
            "<p>No prediction is kept yet: write one down on a panel before you press Run, even a "
            "rough one. The distance to the result is what you learn from.</p>"
        )
    from labkit.prediction_plots import predictions_figure

    said = _calibration(runs)
    shown = runs[::-1][:_MOST_ROWS]
    picture = _picture(predictions_figure(shown))
    rows = [
        [
            run.label,
            format_ratio(run.predicted),
            f"{format_ratio(run.speedup)} [{format_ratio(run.low)}, {format_ratio(run.high)}]",
            run.verdict,
            _off_in_words(run),
        ]
        for run in shown
    ]
    caption = "Speed-up of the last variant over the baseline, newest first"
    if len(runs) > len(shown):
        caption += f"; {len(runs) - len(shown)} older ones are counted above and not listed"
    head = ["experiment", "you said", "measured [interval]", "verdict", "how far off"]
    note = (
        "A prediction counts if nothing with the same values had run on a panel before. Later "
        "runs, and runs without a prediction, are left out."
    )
    return (
        f"<p>{escape(' '.join(said))}</p>"
        f'<figure class="predictions">{picture}</figure>'
        f'{_table(head, rows, caption)}<p class="about">{escape(note)}</p>'
    )


# Results.


def _results(kept: Progress) -> str:
    if not kept.results:
        return "<p>Nothing has run on a panel yet: open a notebook, go to a panel, press Run.</p>"
    newest = kept.results[::-1]
    figures = "".join(_result_figure(each) for each in newest[:_MOST_PICTURES])
    others = [
        f"{_title(each)}: {sentence}"
        for each in newest[_MOST_PICTURES:]
        for sentence in each.result.sentences[-1:]
    ]
    more = ""
    if others:
        more = "<p>Before that:</p>" + _list(others[:_MOST_OTHERS])
        left = len(others) - _MOST_OTHERS
        more += f"<p>And {_count(left, 'older result')}.</p>" if left > 0 else ""
    return figures + more


def _result_figure(each: PanelResult) -> str:
    said = list(each.result.sentences)
    left = len(said) - _MOST_VERDICTS
    if left > 1:
        # Of a sweep, a sentence may be about a slice, or about a point that has no result.
        sweep = isinstance(each.result, Sweep)
        rest = "sentences about it, left out here" if sweep else "variants, which the picture shows"
        said[_MOST_VERDICTS:] = [f"And {left} more {rest}."]
    values = "" if isinstance(each.result, Sweep) else _values(each.result.parameters)
    about = ", ".join(filter(None, [values, each.at_utc[:10]]))
    try:
        figure = each.result.plot()
        if isinstance(each.result, Sweep):
            # Two pictures in one: as it is, it would fill half of a printed page.
            figure.set_size_inches(7, 4.4)
        picture = _picture(figure)
    except Exception as error:
        # Kept by another version, perhaps: the words are still true.
        picture = f"<p>It cannot be drawn ({escape(type(error).__name__)}).</p>"
    return (
        f'<figure><figcaption>{escape(_title(each))} <span class="values">({escape(about)})</span>'
        f'</figcaption><div class="result">{picture}{_list(said)}</div></figure>'
    )


def _title(each: PanelResult) -> str:
    name = each.result.title or "comparison"
    kind = " (sweep)" if isinstance(each.result, Sweep) else ""
    return f"{each.notebook}: {name}{kind}" if each.notebook else f"{name}{kind}"


# Next steps.


def _next_steps(kept: Progress) -> list[str]:
    if progress.folder() is None:
        return ["Nothing is kept while LABKIT_PROGRESS is off: set it to the name of a folder."]
    scores = _scores(kept.answers)
    steps = [
        f"{name}: answer this question again: {answer.question}"
        for name, score in scores.items()
        for answer in score.wrong
    ][:3]
    for name, score in scores.items():
        left = len(score.asked) - len(score.last)
        steps += [f"{name}: {_count(left, 'question')} of the quiz not answered yet."] * (left > 0)
    steps += [
        f"{_title(each)}: inconclusive. Run it again with a larger budget_s, or when nothing else "
        "runs."
        for each in kept.results
        if not isinstance(each.result, Sweep)
        and each.result[each.result.names[-1]].verdict is Verdict.INCONCLUSIVE
    ][:2]
    steps += _advice(_first_predictions(kept))
    begun = {run.notebook for run in kept.runs} | {each.notebook for each in kept.results}
    unanswered = [name for name in _all_notebooks() if name not in scores]
    if begun & set(unanswered):
        named = [name for name in unanswered if name in begun]
        steps.append(f"Quiz not answered yet: {', '.join(named)}.")
    unseen = [name for name in unanswered if name not in begun]
    if unseen:
        others = f" and {_count(len(unseen) - 1, 'other notebook')}" if len(unseen) > 1 else ""
        steps.append(f"Not begun yet: {unseen[0]}{others}.")
    steps = steps[: _MOST_STEPS - 1]
    return [*steps, "Take your own model through the lab: lab.compare needs two functions."]


def _advice(runs: Sequence[PanelRun]) -> list[str]:
    if not runs:
        return ["Predict before you run: every panel has a field for it."]
    if len(runs) < _ENOUGH:
        return []
    off = [max(_factor(run), 1 / _factor(run)) for run in runs]
    high = sum(_factor(run) < 1 and not _is_inside(run) for run in runs)
    advice = []
    if median(off) > 2:
        advice.append(
            "Before you predict, count bytes and FLOPs and look at the limits of the machine "
            "(notebook 00): half of your predictions are off by more than 2x."
        )
    if high >= 0.8 * len(runs):
        advice.append(
            "You mostly promise more than comes: ask which share of the time the change touches "
            "(Amdahl's law, notebook 01)."
        )
    return advice


def _all_notebooks() -> list[str]:
    from labkit.quizzes import quiz_names

    return quiz_names()


def _fine_print(kept: Progress) -> str:
    origin = (
        "Made by lab.summary() of what quizzes and panels kept on this computer, in the folder "
        "that lab.progress.folder() names; nothing of it was sent anywhere."
    )
    said = [origin]
    if kept.skipped:
        names = ", ".join(list(kept.skipped)[:3])
        more = f" and {len(kept.skipped) - 3} more" if len(kept.skipped) > 3 else ""
        said.append(f"Files that cannot be read were left out: {names}{more}.")
    return f"<p>{escape(' '.join(said))}</p>"


def _in_short(kept: Progress) -> list[str]:
    """What is in the page, for the notebook."""
    if progress.folder() is None:
        return ["LABKIT_PROGRESS is off: nothing is kept, so there is nothing in it."]
    scores, runs = _scores(kept.answers), _first_predictions(kept)
    right = sum(score.right for score in scores.values())
    asked = sum(len(score.asked) for score in scores.values())
    said = [f"Quizzes: {right} of {asked} right in {_count(len(scores), 'notebook')}."]
    if not scores:
        said = ["No quiz is answered yet."]
    said += _calibration(runs)[:1] if runs else ["No prediction is kept yet."]
    said.append(f"{_count(len(kept.results), 'experiment')} with a result on a panel.")
    if kept.skipped:
        said.append(f"{_count(len(kept.skipped), 'file')} could not be read and was left out.")
    return said


# Writing.


def _is_ours(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return path.is_file() and _MARK in file.read(1000)
    except OSError:
        return False


def _replace(target: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno,
            f"the summary was not written to {target} ({reason}): give the path of a file in a "
            'folder that you may write to, as in lab.summary("/tmp/labkit-summary.html")',
        ) from error


def _picture(figure: Figure) -> str:
    from labkit import figures

    figure.set_dpi(_DPI)
    png = base64.b64encode(figures.to_small_png(figure)).decode()
    alt = figure.description if isinstance(figure, figures.Picture) else ""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{png}">'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    return f'<div class="wide">{tables.html_table(head, rows, caption)}</div>'


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _values(parameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(parameters.items()))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
