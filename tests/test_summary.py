"""The page at the end: it says what was done, needs nothing else, and is honest about gaps."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from painted import contrasts_of_intervals

import labkit as lab
from labkit import progress
from labkit.prediction_plots import predictions_figure
from labkit.progress import Answer, PanelResult, PanelRun, Progress
from labkit.results import Comparison
from labkit.summaries import page_html
from labkit.sweeps import Sweep, SweepPoint
from labkit.trials import Trial

ROOT = Path(__file__).parent.parent
QUIZZES = sorted((ROOT / "data" / "quizzes").glob("*.json"))
VOID = {"meta", "img", "br"}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("LABKIT_NAME", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "progress"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "progress"


class Page(HTMLParser):
    """Its elements, its text, and the text of each section; fails where a tag is not closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text, self.sections = [], [], "", {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += f" {data}"
        if "h2" in self.open:
            self.sections[data] = ""
        elif self.sections and "main" in self.open:
            self.sections[list(self.sections)[-1]] += f"{data} "

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def comparison(speedup=2.0, *, rounds=40, **about):
    times = {"float32": (1e-3,) * rounds, "int8": (1e-3 / speedup,) * rounds}
    trials = {name: Trial(name, t, tuple(range(rounds))) for name, t in times.items()}
    return Comparison(trials, **{"title": "static int8", "parameters": {"batch": 1}, **about})


def run(predicted, speedup, **about):
    """Its interval is 5 % to both sides."""
    given = {"notebook": "04-quantization", "experiment": "static int8", "parameters": {}}
    verdict = "faster" if speedup > 1.05 else "slower" if speedup < 0.95 else "same"
    measured = {"speedup": speedup, "low": speedup / 1.05, "high": speedup * 1.05}
    names = {"variant": "int8", "baseline": "float32"}
    rest = {"predicted": predicted, "verdict": verdict, "score": ""}
    return PanelRun(**{**given, **names, **measured, **rest, **about})


def runs(*pairs):
    return tuple(run(p, s, parameters={"batch": n}) for n, (p, s) in enumerate(pairs))


def of(**kept):
    return Page(page_html(Progress(**kept)))


def test_an_empty_page_says_what_to_do(tmp_path):
    made = lab.summary()
    assert made.path == Path("labkit-summary.html")
    page = Page((tmp_path / made.path).read_text(encoding="utf-8"))
    assert list(page.sections) == ["Notebooks", "Predictions", "Results", "What to do next"]
    assert "No quiz is answered yet" in page.sections["Notebooks"]
    assert "No prediction is kept yet" in page.sections["Predictions"]
    assert "Nothing has run on a panel yet" in page.sections["Results"]
    assert "Predict before you run" in page.sections["What to do next"]
    assert lab.machine().line() in page.text
    assert page.all("img") == []
    assert made.sentences == (
        "A new page.",
        "No quiz is answered yet.",
        "No prediction is kept yet.",
        "0 experiments with a result on a panel.",
    )


def test_a_page_of_what_quizzes_and_panels_kept(monkeypatch):
    monkeypatch.chdir(ROOT)
    quiz = lab.quiz("05-pruning")
    right = [[c.correct for c in q.choices].index(True) for q in quiz.questions]
    quiz.answer(0, right[0])
    for choice in ((right[1] + 1) % 3, right[1]):
        quiz.answer(1, choice)
    quiz.answer(2, (right[2] + 1) % 3)
    monkeypatch.setenv("JPY_SESSION_NAME", "05-pruning.ipynb")
    progress.keep_run(comparison(prediction=3.0))
    page = of(**vars(progress.read()))
    assert re.search(r"05-pruning\s+2 of 4\s+1 of 4\s+1\s+1\s", page.sections["Notebooks"])
    assert (
        "1 prediction: 0 inside the measured interval, 1 within 1.5x of the result, 1 within 2x"
        in (page.sections["Predictions"])
    )
    assert re.search(
        r"static int8 \(batch=1\)\s+3.00x\s+2.00x \[2.00x, 2.00x\]\s+faster\s+1.50x less than said",
        page.sections["Predictions"],
    )
    assert "int8 is 2.00x faster than float32 [2.00x, 2.00x]" in page.sections["Results"]
    steps = page.sections["What to do next"]
    assert f"05-pruning: answer this question again: {quiz.questions[2].text}" in steps
    assert "05-pruning: 1 question of the quiz not answered yet." in steps
    assert "Not begun yet: 00-start-here and 7 other notebooks." in steps


def test_the_page_needs_nothing_else_and_everything_has_a_text():
    sweep = Sweep(("batch",), tuple(SweepPoint({"batch": b}, comparison()) for b in (1, 8)), "s")
    results = tuple(PanelResult("04-quantization", r) for r in (comparison(), sweep))
    html = page_html(Progress((), runs((3, 2), (2, 2)), results))
    page = Page(html)
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert not re.search(r"https?://|@import|url\(", html)
    assert len(page.all("img")) == 3
    for image in page.all("img"):
        assert image["src"].startswith("data:image/png;base64,iVBOR")
        assert len(image["alt"]) > 30
    assert len(page.all("caption")) == len(page.all("table")) == 2
    assert {cell["scope"] for cell in page.all("th")} == {"col", "row"}
    headings = [name for name, _ in page.elements if name in ("h1", "h2", "h3")]
    assert headings == ["h1", "h2", "h2", "h2", "h2"]
    assert page.all("html") == [{"lang": "en"}]


def test_how_good_predictions_were():
    kept = runs((2, 2.04), (2, 2.8), (2, 3.8), (0.5, 2), (4, 0.5), (1.5, 1))
    text = of(runs=kept).sections["Predictions"]
    assert "6 predictions: 1 inside the measured interval, 3 within 1.5x of the result, 4 " in text
    assert "4 within 2x. Half of them are off by 1.70x or less." in text
    # Nobody can be on the right side of "same".
    assert "3 of 5 on the right side, where there was a difference" in text
    assert "2 promised more than came, 3 less" in text
    assert "little about a habit" not in text
    assert "little about a habit" in of(runs=kept[:4]).sections["Predictions"]


def test_a_prediction_after_the_result_was_seen_does_not_count():
    seen = run(None, 2.0, experiment="other")
    late = run(2.0, 2.0, experiment="other")
    again = run(2.0, 2.0)
    page = of(runs=(run(4.0, 2.0), again, seen, late))
    assert "1 prediction: 0 inside" in page.sections["Predictions"]
    assert "other" not in page.sections["Predictions"]
    elsewhere = run(2.0, 2.0, notebook="02-gpu-vs-cpu")
    assert "2 predictions: 1 inside" in of(runs=(run(4.0, 2.0), elsewhere)).sections["Predictions"]


def test_advice_fits_the_predictions():
    def advice(*pairs):
        return of(runs=runs(*pairs)).sections["What to do next"]

    assert "You mostly promise more than comes" in advice(*[(1.5, 1.2)] * 5)
    assert "count bytes and FLOPs" in advice(*[(1, 5)] * 5)
    for modest in (advice(*[(2, 2)] * 5), advice(*[(1, 5)] * 4)):
        assert "promise" not in modest
        assert "FLOPs" not in modest


def test_only_the_newest_are_shown_and_the_rest_is_counted():
    results = tuple(PanelResult("", comparison(2 + n, title=f"experiment {n}")) for n in range(9))
    page = of(runs=runs(*[(2, 2)] * 12), results=results)
    assert len(page.all("img")) == 3
    assert page.all("img")[1]["alt"].startswith("experiment 8: Times and speed-ups of 2 variants")
    assert "experiment 6: int8 is 8.00x faster" in page.sections["Results"]
    assert "And 3 older results." in page.sections["Results"]
    assert "12 predictions: 12 inside" in page.sections["Predictions"]
    assert "2 older ones are counted above and not listed" in page.sections["Predictions"]
    assert "(notebook not known)" in page.sections["Notebooks"]


def test_variants_that_are_not_told_are_counted():
    def told(variants):
        names = [f"v{n}" for n in range(variants)]
        trials = {n: Trial(n, (1.0 + i,) * 40, tuple(range(40))) for i, n in enumerate(names)}
        return of(results=(PanelResult("", Comparison(trials)),)).sections["Results"]

    assert "v5 is 6.00x slower" in told(6)
    assert "v6 is 7.00x slower" in told(7)
    assert "v5 is 6.00x slower" in told(8)
    assert "v6 is" not in told(8)
    assert "And 2 more variants, which the picture shows." in told(8)


def test_what_is_left_out_of_a_sweep_is_not_said_to_be_in_the_picture():
    failed = tuple(SweepPoint({"batch": b}, None, "MemoryError: too large") for b in range(2, 9))
    sweep = Sweep(("batch",), (SweepPoint({"batch": 1}, comparison()), *failed), "s")
    text = of(results=(PanelResult("", sweep),)).sections["Results"]
    assert "batch=2 was not measured" in text
    assert "And 3 more sentences about it, left out here." in text
    assert "which the picture shows" not in text


def test_what_is_open_is_named_where_something_was_done_and_counted_elsewhere(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = ("01-profiling", "04-quantization")
    kept = tuple(run(2, 2, notebook=name) for name in done)
    text = of(runs=kept).text
    assert "Quiz not answered yet: 01-profiling, 04-quantization." in text
    assert "Not begun yet: 00-start-here and 6 other notebooks." in text
    assert "08-distributed-training" not in text
    every = tuple(Answer(path.stem, "a?", "b", True, ("a?",)) for path in QUIZZES[:-1])
    assert f"Not begun yet: {QUIZZES[-1].stem}." in of(answers=every).text
    assert (
        "Not begun yet" not in of(answers=every, runs=(run(2, 2, notebook=QUIZZES[-1].stem),)).text
    )


def test_an_inconclusive_result_is_to_be_run_again():
    noisy = {
        "a": Trial("a", tuple(1 + 0.5 * (n % 2) for n in range(40)), tuple(range(40))),
        "b": Trial("b", tuple(1.5 - 0.5 * (n % 2) for n in range(40)), tuple(range(40))),
    }
    page = of(results=(PanelResult("01-profiling", Comparison(noisy, title="loops")),))
    assert "01-profiling: loops: inconclusive. Run it again" in page.sections["What to do next"]


def test_a_question_that_is_no_longer_asked_does_not_count():
    old = Answer("05-pruning", "old?", "a", True, ("old?", "why?"))
    new = Answer("05-pruning", "why?", "a", True, ("why?", "new?"))
    assert re.search(r"1 of 2\s+1 of 2", of(answers=(old, new)).sections["Notebooks"])


def test_what_people_wrote_is_escaped(monkeypatch):
    evil = '<script>alert("x")</script>'
    monkeypatch.setenv("LABKIT_NAME", f"{evil} & Co")
    trials = {n: Trial(n, (s,) * 40, tuple(range(40))) for n, s in ((evil, 1.0), (f"b{evil}", 0.5))}
    result = Comparison(trials, title=evil, parameters={evil: evil})
    answer = Answer(evil, evil, evil, False, (evil,))
    html = page_html(
        Progress(
            (answer,),
            (run(2.0, 2.0, experiment=evil, notebook=evil, parameters={evil: evil}),),
            (PanelResult(evil, result),),
            {f"{evil}.json": evil},
        )
    )
    assert "<script" not in html
    assert 'alert("x")' not in html
    page = Page(html)
    assert f"{evil} & Co: what I did in the lab" in page.text
    assert {name for name, _ in page.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "footer"),
        *("h1", "h2", "p", "ul", "li", "div", "span", "figure", "figcaption", "img"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    }


def test_nobody_and_no_place_is_named_unless_asked(store, monkeypatch):
    progress.keep_run(comparison())
    html = page_html(progress.read())
    assert "<h1>What I did in the lab</h1>" in html
    assert str(store.parent) not in html
    assert str(Path.home()) not in html
    monkeypatch.setenv("LABKIT_NAME", " Grace ")
    assert "<h1>Grace: what I did in the lab</h1>" in page_html(progress.read())


def test_broken_files_are_named(store):
    progress.keep_run(comparison())
    (broken,) = store.glob("run-*")
    broken.write_text("{")
    made = lab.summary()
    assert "1 file could not be read and was left out." in made.sentences
    assert broken.name in made.path.read_text()


def test_a_result_that_cannot_be_drawn_is_still_told(monkeypatch):
    monkeypatch.setattr(Comparison, "plot", lambda _: math.sqrt(-1))
    results = of(results=(PanelResult("", comparison()),)).sections["Results"]
    assert "It cannot be drawn (ValueError)" in results
    assert "int8 is 2.00x faster" in results


# The file.


def test_an_older_summary_is_replaced_and_nothing_else(tmp_path):
    assert lab.summary().sentences[0] == "A new page."
    progress.keep_run(comparison())
    assert lab.summary().sentences[0] == "The summary that was there is replaced."
    assert "static int8" in Path("labkit-summary.html").read_text()
    other = tmp_path / "thesis.html"
    other.write_text("<p>mine</p>")
    with pytest.raises(FileExistsError, match=r'stays as it is: give another name, .*"my-summary'):
        lab.summary(other)
    assert other.read_text() == "<p>mine</p>"
    (tmp_path / "folder").mkdir()
    assert lab.summary("folder").path == Path("folder/labkit-summary.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("folder", "labkit-summary.html", "progress", "thesis.html")
    ]


def test_where_it_cannot_be_written_the_way_out_is_named(tmp_path):
    with pytest.raises(OSError, match=r"not written to missing/page.html .*give the path"):
        lab.summary("missing/page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_a_link_where_jupyter_can_follow_it(tmp_path, monkeypatch):
    made = lab.summary("my page.html")
    assert repr(made) == "Summary(my page.html)"
    assert '<a href="my%20page.html" target="_blank">my page.html</a>' in made._repr_html_()
    assert "<li>No quiz is answered yet.</li>" in made._repr_html_()
    assert str(made).splitlines()[:2] == ["my page.html:", "A new page."]
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert "<a" not in lab.summary(tmp_path / "above.html")._repr_html_()


def test_off_is_said(monkeypatch):
    monkeypatch.setenv("LABKIT_PROGRESS", "off")
    made = lab.summary()
    assert (
        made.sentences[1] == "LABKIT_PROGRESS is off: nothing is kept, so there is nothing in it."
    )
    assert "set it to the name of a folder" in made.path.read_text()


# The picture.


def test_a_prediction_and_its_result_are_on_one_row_of_a_logarithmic_axis():
    figure = predictions_figure(runs((5, 20), (0.5, 0.4)))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        *("static int8 (batch=0)", "static int8 (batch=1)")
    ]
    marked = [(line.get_marker(), line.get_xdata()[0]) for line in axes.lines]
    assert [(m, x) for m, x in marked if m in "oD"] == [
        *(("o", 20), ("D", 5), ("o", 0.4), ("D", 0.5))
    ]
    ends = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"]
    assert ends == [pytest.approx((20 / 1.05, 21)), pytest.approx((0.4 / 1.05, 0.42))]
    low, high = axes.get_xlim()
    assert low < 0.4 / 1.05
    assert high > 21


def test_the_intervals_of_predictions_stand_out_as_they_are_painted():
    kept = [run(p, 2, low=1, high=high) for p, high in ((3, 4), (0.5, 16), (2, 9))]
    assert min(contrasts_of_intervals(predictions_figure(kept))) >= 3


def test_a_picture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no run"):
        predictions_figure(())
    with pytest.raises(ValueError, match="nobody predicted the result of 'static int8'"):
        predictions_figure((run(None, 2.0),))
