"""A quiz answered by keyboard, and the summary that it leads to."""

from __future__ import annotations

import json
import re

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="Playwright is missing: pip install -c constraints.txt -e '.[test]'",
)
expect = sync_api.expect

# The name under which a panel in this notebook would keep its runs: only a real server gives it.
NOTEBOOK = "from labkit import progress\n\nprint(progress._notebook())"


def test_a_quiz_is_answered_by_keyboard_and_stands_in_the_summary(lab):
    cells = ('import labkit as lab\n\nlab.quiz("05-pruning")', "lab.summary()", NOTEBOOK)
    path = lab.write_notebook("notebooks/quiz.ipynb", *cells)
    lab.open(path)
    lab.run_cell(0)
    quiz = lab.output(0).get_by_role("group", name="Quiz: 05-pruning")
    first = quiz.get_by_role("radiogroup").first
    expect(first).to_have_accessible_name(re.compile(r"^1\. 95 % of the weights .* kernel save\?$"))
    expect(quiz.get_by_role("radiogroup")).to_have_count(4)

    # Tab takes the answers as one, arrows choose among them.
    lab.button("Check answer 1", quiz).click()
    expect(quiz.get_by_role("status").first).to_have_text("Choose an answer first.")
    lab.page.keyboard.press("Shift+Tab")
    expect(first.get_by_role("radio").nth(2)).to_be_focused()
    lab.page.keyboard.press("ArrowUp")
    expect(first.get_by_role("radio").nth(1)).to_be_checked()
    first.get_by_role("radio", name="95 % of the time").focus()
    lab.page.keyboard.press("Space")
    lab.page.keyboard.press("Tab")
    expect(lab.button("Check answer 1", quiz)).to_be_focused()
    lab.page.keyboard.press("Enter")
    expect(quiz.get_by_role("status").first).to_contain_text(
        "Not right. That is the share of zeros"
    )
    expect(quiz).to_contain_text("0 of 4 right, 0 at the first try; 3 not answered yet.")
    lab.screenshot("wrong", quiz)
    first.get_by_role("radio", name="Nothing: it reads and multiplies").click()
    lab.page.keyboard.press("Tab")
    lab.page.keyboard.press("Space")
    expect(quiz.get_by_role("status").first).to_contain_text("Right. Yes: somebody has to")
    expect(quiz).to_contain_text("1 of 4 right, 0 at the first try; 3 not answered yet.")
    lab.set_theme("dark")
    lab.set_width(700)
    lab.screenshot("right-700-dark", quiz)

    lab.run_cell(1)
    link = lab.output(1).get_by_role("link", name="labkit-summary.html")
    expect(link).to_be_visible()
    lab.run_cell(2)
    expect(lab.output(2)).to_have_text("quiz")
    assert lab.errors() == []
    lab.command("docmanager:save")
    saved = (lab.server.root / path).read_text()
    assert "widgets" not in json.loads(saved)["metadata"]
    assert "That is the share of zeros" not in saved  # the feedback is for whoever answers
    assert "at the first try" not in saved
    needs_nothing_else(lab)


def needs_nothing_else(lab):
    page = lab.page.context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((lab.server.root / "notebooks" / "labkit-summary.html").as_uri())
    expect(page.get_by_role("row", name="05-pruning 1 of 4 0 of 4")).to_be_visible()
    assert [url for url in asked if not url.startswith("data:")] == [page.url]
    page.close()
