"""The quizzes: every question can be answered, every notebook asks its own, nothing leaks."""

import json
import re
from collections import Counter
from pathlib import Path

import ipywidgets
import pytest

import labkit as lab
from labkit import progress
from labkit.quizzes import Choice, Question, Quiz, quiz_names

ROOT = Path(__file__).parent.parent
QUIZZES = sorted((ROOT / "data" / "quizzes").glob("*.json"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("LABKIT_NAME", raising=False)
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "progress"))
    return tmp_path / "progress"


@pytest.fixture
def sums():
    two = Question(
        "2 + 2 < 5?",
        (
            Choice("yes", correct=True, feedback="Four is less."),
            Choice("no <b>", correct=False, feedback="Count with `sum`, and <i>look</i>."),
        ),
    )
    three = Question(
        "3 + 3?",
        (Choice("33", False, "A text."), Choice("6", True, "Yes."), Choice("5", False, "-")),
    )
    return Quiz("sums", [two, three])


def inside(widget, kind):
    found = [widget] if isinstance(widget, kind) else []
    return found + [w for child in getattr(widget, "children", ()) for w in inside(child, kind)]


# Those of the notebooks.


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_every_quiz_can_be_asked_and_says_why(path):
    asked = lab.quiz(path)
    assert asked.name == path.stem
    assert len(asked.questions) >= 3
    assert all(choice.feedback for question in asked.questions for choice in question.choices)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_asks_its_quiz_and_names_the_summary(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    asking = [cell for cell in cells if "lab.quiz(" in "".join(cell["source"])]
    (cell,) = [cell for cell in asking if cell["cell_type"] == "code"]
    assert "".join(cell["source"]) == f'lab.quiz("{path.stem}")'
    (output,) = cell["outputs"]
    assert "".join(output["data"]["text/plain"]) == str(
        lab.quiz(ROOT / f"data/quizzes/{path.stem}.json")
    )
    assert any("lab.summary()" in "".join(c["source"]) for c in cells if c["cell_type"] != "code")


def test_the_place_of_the_right_answer_tells_nothing():
    questions = [question for path in QUIZZES for question in lab.quiz(path).questions]
    places = Counter([c.correct for c in question.choices].index(True) for question in questions)
    assert len(questions) > 30
    assert all(len(questions) / 10 < places[place] < len(questions) / 2 for place in range(3))


def test_every_quiz_has_a_notebook():
    assert [path.stem for path in QUIZZES] == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks", ROOT / "data" / "quizzes"])
def test_a_quiz_is_found_beside_the_notebooks(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert lab.quiz("05-pruning").name == "05-pruning"
    assert quiz_names() == [path.stem for path in QUIZZES]


# Answering.


def test_an_answer_is_right_or_not_in_words(sums):
    assert sums.score == "0 of 2 right, 0 at the first try; 2 not answered yet."
    assert sums.answer(0, 1) == "Not right. Count with `sum`, and <i>look</i>."
    assert sums.score == "0 of 2 right, 0 at the first try; 1 not answered yet."
    assert sums.answer(0, 0) == "Right. Four is less."
    assert sums.answer(1, 1) == "Right. Yes."
    assert sums.score == "2 of 2 right, 1 at the first try."
    assert sums.answer(1, 0) == "Not right. A text."
    assert sums.score == "1 of 2 right, 1 at the first try."


def test_the_buttons_do_the_same(sums):
    radios = inside(sums.widget, ipywidgets.RadioButtons)
    buttons = inside(sums.widget, ipywidgets.Button)
    assert [button.description for button in buttons] == ["Check answer 1", "Check answer 2"]
    assert [radio.options for radio in radios] == [("yes", "no <b>"), ("33", "6", "5")]
    assert [radio.index for radio in radios] == [None, None]

    def said():
        return [
            w.value for w in inside(sums.widget, ipywidgets.HTML) if "labkit-live" in w._dom_classes
        ]

    buttons[0].click()
    assert "Choose an answer first." in said()[0]
    radios[0].index = 1
    assert "0 of 2 right, 0 at the first try; 2 not" in said()[2]  # chosen is not yet checked
    buttons[0].click()
    assert "Not right. Count with <code>sum</code>, and &lt;i&gt;look&lt;/i&gt;." in said()[0]
    assert "1 not answered yet" in said()[2]
    sums.answer(1, 2)
    assert radios[1].index == 2


def test_answers_are_kept_with_their_first_try(sums):
    sums.answer(0, 1)
    sums.answer(0, 0)
    Quiz("sums", sums.questions).answer(0, 1)
    kept = progress.read().answers
    assert [(a.quiz, a.question, a.answer, a.correct) for a in kept] == [
        ("sums", "2 + 2 < 5?", "no <b>", False),
        ("sums", "2 + 2 < 5?", "no <b>", False),
    ]
    assert kept[0].questions == ("2 + 2 < 5?", "3 + 3?")


def test_where_nothing_can_be_kept_the_quiz_goes_on(sums, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "file" / "progress"))
    assert sums.answer(0, 0) == "Right. Four is less."
    texts = [widget.value for widget in inside(sums.widget, ipywidgets.HTML)]
    assert sum("Your progress is not kept" in text for text in texts) == 1


def test_off_keeps_nothing_and_says_nothing_of_keeping(sums, store, monkeypatch):
    monkeypatch.setenv("LABKIT_PROGRESS", "off")
    quiet = Quiz("sums", sums.questions)
    quiet.answer(0, 0)
    assert not store.exists()
    assert not [w for w in inside(quiet.widget, ipywidgets.HTML) if "kept" in w.value]


@pytest.mark.parametrize(
    ("number", "choice", "text"),
    [
        (2, 0, "there is no question 2; the 2 questions of sums are numbered from 0 to 1"),
        (-1, 0, "no question -1"),
        (1, 3, "question 1 has no answer 3; its 3 answers are numbered from 0 to 2"),
        (1, "6", "no answer '6'"),
    ],
)
def test_what_is_not_asked_cannot_be_answered(sums, store, number, choice, text):
    with pytest.raises(ValueError, match=text):
        sums.answer(number, choice)
    assert not store.exists()


# What stays in the notebook.


def test_the_saved_text_has_the_questions_and_no_answers_of_anybody(sums):
    before = sums._repr_mimebundle_()
    sums.answer(0, 1)
    sums.answer(1, 1)
    after = sums._repr_mimebundle_()
    for kind in ("text/plain", "text/html"):
        assert before[kind] == after[kind] == Quiz("sums", sums.questions)._repr_mimebundle_()[kind]
        for secret in ("less", "sum`", "Right", "right", "at the first try"):
            assert secret not in after[kind]
    assert "application/vnd.jupyter.widget-view+json" in after
    assert after["text/plain"].splitlines()[2:5] == ["1. 2 + 2 < 5?", "   ( ) yes", "   ( ) no <b>"]
    html = after["text/html"]
    assert html.count("<details>") == html.count("</details>") == 2
    assert "<summary>1. 2 + 2 &lt; 5?</summary><ul><li>yes</li><li>no &lt;b&gt;</li></ul>" in html
    assert repr(sums) == "Quiz(sums: 2 questions)"


# Files of others.


def test_a_quiz_that_is_not_there_names_those_that_are(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    with pytest.raises(
        FileNotFoundError, match=r"no quiz '5-pruning' in .*; there are 00-start-here, 01"
    ):
        lab.quiz("5-pruning")
    with pytest.raises(FileNotFoundError, match=r"there is no quiz missing\.json"):
        lab.quiz("missing.json")
    monkeypatch.chdir(tmp_path)
    assert quiz_names() == []
    with pytest.raises(FileNotFoundError, match="give the path of a JSON file"):
        lab.quiz("05-pruning")


RIGHT = {"answer": "a", "correct": True, "feedback": "-"}
WRONG = {"answer": "b", "correct": False, "feedback": "-"}
GOOD = {"question": "?", "type": "multiple_choice", "answers": [RIGHT, WRONG]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[{", "is not JSON"),
        ("[]", "at least one"),
        ('{"question": "?"}', "a list of questions"),
        (["text"], "question 0 needs question, type and answers"),
        ([GOOD, {**GOOD, "answers": [{"answer": "a"}]}], "question 1 needs"),
        ([{**GOOD, "type": "numeric"}], "its type is 'numeric', not 'multiple_choice'"),
        ([{**GOOD, "answers": [RIGHT]}], "two different answers or more"),
        ([{**GOOD, "answers": [RIGHT, {**WRONG, "answer": "a"}]}], "none twice"),
        ([{**GOOD, "answers": [RIGHT, {**WRONG, "correct": True}]}], "one answer .* not 2"),
        ([{**GOOD, "answers": [WRONG, {**WRONG, "answer": "c"}]}], "one answer .* not 0"),
    ],
)
def test_a_file_that_is_no_quiz_is_refused_with_the_reason(tmp_path, content, text):
    path = tmp_path / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=text) as caught:
        lab.quiz(path)
    assert re.search(re.escape(str(path)), str(caught.value))
    path.write_text(json.dumps([GOOD]))
    assert lab.quiz(path).name == "mine"
