"""The summary of somebody who did everything, printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.progress import Answer, PanelResult, PanelRun, Progress
from labkit.results import Comparison
from labkit.summaries import page_html
from labkit.sweeps import Sweep, SweepPoint
from labkit.trials import Trial

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="Playwright is missing: pip install -c constraints.txt -e '.[test]'",
)
expect = sync_api.expect

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
VALUES = {"pieces": 16, "rows": 2048, "schedule": "1F1B", "threads": 1}


def comparison_of(variants):
    rounds = tuple(range(40))
    trials = {}
    for n in range(variants):
        name = f"a variant with a long name {n}"
        times_s = tuple(1e-3 * (1 + 0.3 * n + 0.5 * ((n + k) % 2)) for k in rounds)
        trials[name] = Trial(name, times_s, rounds)
    return Comparison(trials, title="a pipeline of four stages", parameters=VALUES)


SWEEP = Sweep(
    ("rows",),
    tuple(SweepPoint({"rows": rows}, comparison_of(4)) for rows in (1, 8, 40, 120)),
    "a pipeline of four stages",
)


@pytest.mark.parametrize(
    "newest", [comparison_of(2), comparison_of(9), SWEEP], ids=["of-two", "of-nine", "sweep"]
)
def test_a_summary_of_all_that_can_be_done_prints_on_two_pages(browser, tmp_path, newest):
    names = [path.stem for path in NOTEBOOKS]
    asked = tuple(f"What is {n} times as fast where kernels skip what is zero?" for n in range(4))
    answers = tuple(
        Answer(name, question, "No.", correct, asked)
        for name in names
        for question, correct in zip(asked[:3], (True, False, True), strict=True)
    )
    about = {"experiment": "four stages in one process", "variant": "1F1B", "baseline": "GPipe"}
    measured = {"predicted": 4.0, "speedup": 2.0, "low": 1.9, "high": 2.1, "verdict": "faster"}
    runs = tuple(
        PanelRun(name, parameters=VALUES | {"threads": n}, score="", **about, **measured)
        for n in range(3)
        for name in names
    )
    older = [comparison_of(9)] * len(names)
    results = tuple(map(PanelResult, names * 2, [*older, *[newest] * len(names)]))
    broken = {f"result-{n}.json": "cut off" for n in range(5)}
    path = tmp_path / "summary.html"
    path.write_text(page_html(Progress(answers, runs, results, broken)), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    expect(page.locator("img")).to_have_count(3)
    printed = page.pdf(prefer_css_page_size=True)
    page.close()
    assert printed.count(b"/Type /Page\n") == 2
