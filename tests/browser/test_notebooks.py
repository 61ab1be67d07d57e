"""Every panel as a reader uses it: run its notebook to it, then press every button.

One notebook is run whole, as a reader begins; of the others, the cells that their panels need: all
cells of all notebooks are run by `make test-notebooks`.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from tools.slice_notebook import panels_in, slice_to_panels

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="Playwright is missing: pip install -c constraints.txt -e '.[test]'",
)
expect = sync_api.expect

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
RUN_S = 60


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_panel_of_the_notebook_works(lab, notebook):
    whole = nbformat.read(notebook, as_version=4)
    if notebook == NOTEBOOKS[0]:
        lab.open(f"notebooks/{notebook.name}")
    else:
        name = f"notebooks/{notebook.stem}-panels.ipynb"
        nbformat.write(with_short_runs(slice_to_panels(whole)), lab.server.root / name)
        lab.open(name)
    lab.run_all_cells()
    assert lab.errors() == []
    panels = lab.page.locator(".labkit-panel")
    expect(panels).to_have_count(sum(map(panels_in, whole.cells)))
    assert panels.count() >= 1
    lab.set_width(1200, 1800)
    for number in range(panels.count()):
        use(lab, panels.nth(number), f"panel-{number}", again=number == 0)
    assert lab.errors() == []
    lab.set_theme("dark")
    lab.set_width(700, 2400)
    for number in range(panels.count()):
        lab.screenshot(f"panel-{number}-700-dark", panels.nth(number))


def with_short_runs(notebook):
    """The same panels, whose runs take a second: here they have to work, not to decide.

    Nor is their memory measured, for which every model is made once more: test_panel.py sees that
    panels show it.
    """
    for cell in notebook.cells:
        if ".panel(" in cell.source:
            quick = re.sub(r"\bbudget_s=[\d.]+", "budget_s=1", cell.source)
            cell.source = quick.replace("memory=True", "memory=False")
    return notebook


def use(lab, panel, name, *, again):
    """Press every button; a second run with other values where ``again`` says so."""
    prediction = panel.get_by_label("prediction")
    if prediction.count():
        lab.button("Run", panel).click()
        expect(panel.get_by_role("alert")).to_contain_text("predict first")
        prediction.fill("2")
    run(lab, panel)
    if prediction.count():
        expect(panel.get_by_text("You said 2.00x")).to_be_visible()
    lab.screenshot(f"{name}-first", panel)
    first = measured(panel)

    if panel.get_by_role("button", name="Sweep").count():
        lab.button("Sweep", panel).click()
        lab.button("Stop", panel).click()
        expect(panel.get_by_text("stopped; what was measured is kept")).to_be_visible()

    if again:
        move_a_control(panel)
        run(lab, panel)
        assert measured(panel) != first
        expect(panel.get_by_text("the controls have moved since")).to_have_count(0)
        lab.screenshot(f"{name}-second", panel)


def run(lab, panel):
    """Press Run, see it work, and wait for its end."""
    button = lab.button("Run", panel)
    button.click()
    expect(panel.get_by_text("rounds in")).to_be_visible(timeout=RUN_S * 1000)
    expect(button).to_be_enabled()
    expect(panel.get_by_role("alert")).to_have_count(0)
    expect(panel.get_by_role("table")).to_be_visible()
    expect(panel.get_by_text("Download everything (JSON)")).to_be_visible()


def measured(panel):
    """The caption of the result: the values that were measured."""
    return panel.locator("caption").first.inner_text()


def move_a_control(panel):
    """Choose something else with the first control that there is."""
    if panel.get_by_role("slider").count():
        panel.get_by_role("slider").first.press("ArrowRight")
        return
    # Not the one of the sweep, which stands below the parameters.
    choice = panel.locator("select").first
    options = choice.locator("option").all_inner_texts()
    chosen = choice.evaluate("select => select.selectedIndex")
    choice.select_option(options[(chosen + 1) % len(options)])
