"""The quizzes: every question can be answered, and every quiz is asked by its notebook."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUIZZES = sorted((ROOT / "data" / "quizzes").glob("*.json"))


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_every_question_has_one_right_answer_and_says_why(path):
    questions = json.loads(path.read_text(encoding="utf-8"))
    assert len(questions) >= 3
    for question in questions:
        assert question["type"] == "multiple_choice"
        assert [a["correct"] for a in question["answers"]].count(True) == 1, question["question"]
        assert all(a["feedback"] for a in question["answers"])


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_the_notebook_of_its_name_asks_it(path):
    notebook = (ROOT / "notebooks" / f"{path.stem}.ipynb").read_text(encoding="utf-8")
    assert f"../data/quizzes/{path.name}" in notebook


def test_every_notebook_has_a_quiz():
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.stem for path in QUIZZES} == notebooks
