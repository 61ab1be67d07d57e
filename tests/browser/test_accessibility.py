"""The panel by keyboard alone, in words, and in colours that can be told apart."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbformat.v4 import new_output

from labkit import figures, plots
from labkit.results import Comparison
from labkit.trials import Trial

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="Playwright is missing: pip install -c constraints.txt -e '.[test]'",
)
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
expect = sync_api.expect

# Work of so different lengths that no budget gives an answer: only Stop ends it.
ENDLESS = """\
import random, time
import labkit as lab

@lab.experiment(kind=["short", "long"], repeat=(1, 5), batches_in_flight_at_the_same_time=False)
def endless(kind, repeat, batches_in_flight_at_the_same_time):
    '''Two ways to wait.'''
    def work():
        time.sleep(random.uniform(0.001, 0.01))
    return {"one": work, "other": work}"""
PANEL = "endless.panel(budget_s={budget_s}, memory=True)"
CONTROLS = [
    "kind",
    "repeat",
    "repeat as a number",
    "batches in flight at the same time",
    "prediction",
    "Run",
    "Stop",
    "Sweep",
    "over",
    "keep a record",
]

TIMES_S = {"a": 2e-3, "b": 1e-3}
TRIALS = {name: Trial(name, (s,) * 20, tuple(range(20))) for name, s in TIMES_S.items()}
PICTURE = plots.comparison_figure(Comparison(TRIALS))

# The accessible name of what has the focus, empty outside of a panel, and its outline.
FOCUSED = """() => {
    const e = document.activeElement;
    const style = getComputedStyle(e);
    const name = e.getAttribute("aria-label") ?? e.labels?.[0]?.innerText ?? e.innerText;
    const outline = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
    return [e.closest(".labkit-panel") ? name.trim() : "", outline];
}"""
# Colours of what shows that there is a control, and where it stands: borders, tracks, handles.
EDGED = "select, input[type=text], .widget-button, .noUi-handle, progress"
EDGES = f"""panel => [
    ...[...panel.querySelectorAll("{EDGED}")]
        .map(e => [e.className || e.tagName, getComputedStyle(e).borderTopColor]),
    ...[...panel.querySelectorAll(".noUi-target")]
        .map(e => [e.className, getComputedStyle(e).backgroundColor]),
]"""
GROUND = """panel => {
    const colour = e => getComputedStyle(e).backgroundColor;
    while (/, 0\\)$/.test(colour(panel))) panel = panel.parentElement;
    return colour(panel);
}"""
# Texts that do not fit into their element and cannot be scrolled to.
CUT_OFF = """panel => [...panel.querySelectorAll("*")].filter(e => {
    if (!e.offsetParent || e.closest(".labkit-unseen")) return false;
    const hidden = ["hidden", "clip"].includes(getComputedStyle(e).overflowX);
    return hidden && e.scrollWidth > e.clientWidth + 1 && e.tagName !== "INPUT";
}).map(e => e.outerHTML.slice(0, 200))"""


def write_notebook(lab, budget_s):
    """A panel, and a cell with a plot as somebody else saved it."""
    name = lab.write_notebook("panel.ipynb", ENDLESS, PANEL.format(budget_s=budget_s), "1 + 1")
    notebook = nbformat.read(lab.server.root / name, as_version=4)
    data, metadata = PICTURE._repr_mimebundle_()
    notebook.cells[2].outputs = [new_output("display_data", data, metadata=metadata)]
    nbformat.write(notebook, lab.server.root / name)
    return name


def run_panel(lab):
    lab.run_all_cells()
    assert lab.errors() == []
    return lab.output(1).locator(".labkit-panel")


def focused(lab):
    return lab.page.evaluate(FOCUSED)[0]


def rgb(text):
    """A colour of a computed style, for matplotlib."""
    red, green, blue, *_ = (int(number) / 255 for number in re.findall(r"\d+", text)[:3])
    return red, green, blue


def press(lab, *keys):
    for key in keys:
        lab.page.keyboard.press(key)


def go_to(lab, name, key="Tab"):
    """Press Tab until a control has the focus."""
    for _ in range(len(CONTROLS) + 4):
        if focused(lab) == name:
            return
        press(lab, key)
    pytest.fail(f"no way to {name!r} by {key}; the focus is at {focused(lab)!r}")


def number_of_cells(lab):
    return lab.page.evaluate("jupyterapp.shell.currentWidget.content.widgets.length")


def test_everything_on_a_panel_is_done_by_keyboard_alone(lab):
    lab.open(write_notebook(lab, 60))
    panel = run_panel(lab)
    lab.cell(1).focus()
    seen = {}
    for _ in range(30):
        press(lab, "Tab")
        name, outline = lab.page.evaluate(FOCUSED)
        if name:
            seen[name] = outline
        elif seen:
            break
    # In this order, each with a frame that shows where one is; and Tab leaves the panel.
    assert list(seen) == CONTROLS
    assert min(seen.values()) >= 2

    go_to(lab, "kind", "Shift+Tab")
    press(lab, "ArrowDown")
    expect(panel.get_by_label("kind")).to_have_value("long")
    go_to(lab, "repeat")
    press(lab, "ArrowRight")
    expect(panel.get_by_role("slider", name="repeat")).to_have_attribute("aria-valuetext", "4")
    go_to(lab, "batches in flight at the same time")
    press(lab, "Space")
    expect(panel.get_by_label("batches in flight")).to_be_checked()
    go_to(lab, "prediction")
    lab.page.keyboard.type("1.5")
    go_to(lab, "over")
    press(lab, "ArrowDown")
    expect(panel.get_by_label("over")).to_have_value("repeat")
    go_to(lab, "keep a record")
    press(lab, "Space")
    expect(panel.get_by_label("name (optional)")).to_be_visible()
    press(lab, "Tab")
    assert focused(lab) == "name (optional)"
    lab.page.keyboard.type("Ada")

    go_to(lab, "Run", "Shift+Tab")
    # None of them is a command of the notebook here, though some would cut or delete its cells.
    press(lab, "x", "d", "d", "a", "ArrowUp", "Enter")
    expect(lab.button("Run", panel)).to_have_attribute("aria-disabled", "true")
    # Runs queue for the machine: somebody else may be measuring.
    expect(panel.locator("img").first).to_be_visible(timeout=60_000)
    assert focused(lab) == "Run"
    press(lab, "Enter")
    expect(panel.get_by_role("alert")).to_contain_text("stop it first")
    press(lab, "Tab", "Space")
    expect(panel.get_by_text("stopped; what was measured is kept")).to_be_visible()
    expect(panel.get_by_text("Kept as")).to_be_visible()
    assert focused(lab) == "Stop"
    go_to(lab, "Sweep")
    press(lab, "Enter")
    expect(panel.get_by_text("point 1 of 5 (repeat=1)")).to_be_visible()
    assert focused(lab) == "Sweep"
    go_to(lab, "Stop", "Shift+Tab")
    press(lab, "Enter")
    expect(lab.button("Stop", panel)).to_have_attribute("aria-disabled", "true")

    go_to(lab, "Download samples (CSV)")
    with lab.page.expect_download() as download:
        press(lab, "Enter")
    assert download.value.suggested_filename == "endless.csv"
    assert number_of_cells(lab) == 3
    # Escape leaves for the notebook, whose commands are back.
    press(lab, "Escape", "b")
    assert number_of_cells(lab) == 4
    assert lab.errors() == []


def test_plots_have_words_and_everything_has_enough_contrast(lab):
    lab.open(write_notebook(lab, 2))
    # A saved plot, in a notebook that nobody has run or trusts yet.
    saved = lab.output(2).get_by_role("img", name=PICTURE.description)
    expect(saved).to_be_visible()
    assert saved.evaluate("image => image.naturalWidth") == 840
    lab.output(2).get_by_text("This plot in words").focus()
    press(lab, "Enter")
    expect(lab.output(2).get_by_text(PICTURE.description)).to_be_visible()
    lab.screenshot("saved", lab.output(2))

    panel = run_panel(lab)
    panel.get_by_label("prediction").fill("1.5")
    lab.button("Run", panel).click()
    stage, said, _, verdict = (panel.locator(".labkit-live").nth(n) for n in range(4))
    expect(stage).to_have_attribute("aria-live", "off")
    expect(said).to_have_text("running, 2 s left at most")
    expect(panel.get_by_text("You said")).to_be_visible(timeout=30_000)
    # What is said at the end is announced: a live region that was there before the text was.
    for live in (stage, verdict):
        expect(live).to_have_role("status")
        expect(live).to_have_attribute("aria-live", "polite")
    expect(said).to_have_text("")

    starts = ["Speed-up over one by rounds", "Times of the samples", "Peak memory above the start"]
    for number, start in enumerate(starts):
        text = panel.locator(".labkit-words p").nth(number)
        expect(text).to_contain_text(start)
        picture = panel.locator("img").nth(number)
        expect(picture).to_be_visible()
        expect(picture).to_have_accessible_name(text.text_content())
    for theme in ("light", "dark"):
        lab.set_theme(theme)
        found = axe.Axe().run(lab.page, context=".labkit-panel")
        assert found.violations_count == 0, found.generate_report()
        ground = rgb(panel.evaluate(GROUND))
        edges = panel.evaluate(EDGES)
        assert len(edges) >= 8
        for name, colour in edges:
            assert figures.contrast(rgb(colour), ground) >= 3, (theme, name, colour)
        lab.set_width(1200, 1700)
        lab.screenshot(theme, panel)
    # 640 pixels are what is left of 1280 where everything is shown at twice its size.
    for width in (700, 640):
        lab.set_width(width, 2200)
        assert panel.evaluate(CUT_OFF) == []
        assert panel.evaluate("p => p.scrollWidth <= p.clientWidth")
        # Where a table is wider than the page, it can be scrolled to by keyboard.
        found = axe.Axe().run(lab.page, context=".labkit-panel")
        assert found.violations_count == 0, found.generate_report()
        lab.screenshot(f"{width}", panel)
