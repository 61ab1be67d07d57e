"""The panel in a real JupyterLab: what a reader presses, and what happens."""

from __future__ import annotations

import json

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="Playwright is missing: pip install -c constraints.txt -e '.[test]'",
)
expect = sync_api.expect

LOOPS = """\
import labkit as lab

@lab.experiment(steps=[1000, 3000, 10000], repeat=(1, 5), backwards=False)
def loops(steps, repeat, backwards):
    '''A short loop and a longer one.'''
    def short():
        for _ in range(1000):
            pass
    def long():
        for _ in range(steps * repeat):
            pass
    return {"short": short, "long": long}"""
PANEL = "panel = loops.panel(budget_s=2, memory=True)\npanel"
# Work of so different lengths that the budget gives no answer: only Stop ends it early.
LONG_PANEL = """\
import random
import time
@lab.experiment(share=[0.5])
def endless(share):
    def work():
        time.sleep(random.uniform(0.001, 0.01))
    return {"one": work, "other": work}
long_panel = endless.panel(budget_s=60, predict=False)
long_panel"""


def open_panel(lab, *cells):
    lab.open(lab.write_notebook("panel.ipynb", LOOPS, *cells))
    lab.run_all_cells()
    assert lab.errors() == []
    return lab.output(len(cells))


def test_a_panel_does_nothing_until_asked_and_wants_a_prediction(lab):
    panel = open_panel(lab, PANEL)
    expect(panel.get_by_role("status").first).to_have_text("ready")
    lab.button("Run", panel).click()
    expect(panel.get_by_role("alert")).to_contain_text("predict first")
    expect(panel.locator("img").first).to_be_hidden()
    lab.screenshot("asked")


def test_run_shows_plot_verdict_table_score_and_data(lab):
    panel = open_panel(lab, PANEL)
    panel.get_by_label("prediction").fill("0.5")
    lab.button("Run", panel).click()
    expect(panel.get_by_text("long is", exact=False).first).to_be_visible()
    expect(panel.get_by_text("You said 0.500x")).to_be_visible(timeout=30_000)
    expect(panel.get_by_role("table")).to_contain_text("peak memory")
    expect(panel.locator("img").first).to_be_visible()
    with lab.page.expect_download() as download:
        panel.get_by_role("link", name="Download everything (JSON)").click()
    record = json.loads(download.value.path().read_text())
    assert record["kind"] == "comparison"
    assert record["prediction"] == 0.5
    with lab.page.expect_download() as download:
        panel.get_by_role("link", name="Download samples (CSV)").click()
    assert download.value.path().read_text().startswith("variant,round,time_s")
    lab.set_width(1200, 1700)
    lab.screenshot("done", panel)
    lab.set_width(700, 2200)
    lab.screenshot("done-700", panel)
    lab.set_theme("dark")
    lab.screenshot("done-700-dark", panel)


def test_the_plot_lives_and_stop_ends_it_while_a_cell_is_answered(lab):
    panel = open_panel(lab, LONG_PANEL, "print(6 * 7)")
    panel = lab.output(1)
    lab.button("Run", panel).click()
    picture = panel.locator("img").first
    expect(picture).to_be_visible(timeout=30_000)
    first = picture.get_attribute("src")
    expect(picture).not_to_have_attribute("src", first)
    lab.run_cell(2)
    expect(lab.output(2)).to_have_text("42")
    expect(lab.button("Stop", panel)).to_be_enabled()
    lab.screenshot("running", panel)
    lab.button("Stop", panel).click()
    expect(panel.get_by_text("stopped; what was measured is kept")).to_be_visible(timeout=2_000)
    expect(lab.button("Run", panel)).to_be_enabled()
    assert lab.errors() == []


def test_controls_move_by_keyboard_and_a_second_run_takes_them(lab):
    panel = open_panel(lab, PANEL)
    panel.get_by_label("prediction").fill("1")
    panel.get_by_label("prediction").press("Tab")
    lab.page.keyboard.press("Space")
    expect(panel.get_by_text("You said")).to_be_visible(timeout=30_000)
    expect(panel.get_by_role("table")).to_contain_text("steps=1000, repeat=3, backwards=False")
    panel.get_by_role("slider").focus()
    lab.page.keyboard.press("ArrowRight")
    panel.get_by_label("steps").select_option("3000")
    panel.get_by_label("backwards").check()
    expect(panel.get_by_text("the controls have moved since")).to_be_visible()
    lab.button("Run", panel).focus()
    lab.page.keyboard.press("Enter")
    expect(panel.get_by_role("table")).to_contain_text(
        "steps=3000, repeat=4, backwards=True", timeout=30_000
    )
    assert lab.errors() == []


def test_run_takes_what_was_chosen_just_before_it_while_a_cell_is_busy(lab):
    panel = open_panel(lab, PANEL, "import time; time.sleep(3)")
    panel = lab.output(1)
    panel.get_by_label("prediction").fill("1")
    run, steps = lab.button("Run", panel), panel.get_by_label("steps")
    run.click()
    expect(panel.get_by_text("rounds in")).to_be_visible(timeout=30_000)
    for chosen in ("3000", "10000"):
        lab.cell(2).locator(".cm-content").first.click()
        lab.page.keyboard.press("Shift+Enter")
        expect(lab.cell(2).locator(".jp-InputPrompt").first).to_have_text("[*]:")
        steps.select_option(chosen)
        run.click()
        expect(panel.get_by_role("table")).to_contain_text(f"steps={chosen},", timeout=30_000)
        expect(panel.get_by_text("rounds in")).to_be_visible(timeout=30_000)
    assert lab.errors() == []


def test_a_sweep_goes_over_the_chosen_parameter(lab):
    panel = open_panel(lab, "loops.panel(budget_s=1, predict=False, repeat=1)")
    panel.get_by_label("over").select_option("steps")
    lab.button("Sweep", panel).click()
    # With 1000 steps both variants are the same: what is said of the crossing depends on luck.
    expect(panel.get_by_text("(3 points)")).to_be_visible(timeout=60_000)
    expect(panel.get_by_role("table")).to_contain_text("10000")
    expect(panel.locator("img").first).to_be_visible()
    lab.set_width(1200, 1700)
    lab.screenshot("sweep", panel)
    assert lab.errors() == []
