"""The harness itself: what the tests of notebooks rely on."""

import os

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="Playwright is missing: pip install -c constraints.txt -e '.[test]'",
)
expect = sync_api.expect

PANEL = """\
import ipywidgets
from IPython.display import display

label = ipywidgets.Label("not pressed")
button = ipywidgets.Button(description="Run")
slider = ipywidgets.IntSlider(description="size", min=1, max=9, value=3)
button.on_click(lambda _: setattr(label, "value", f"pressed with {slider.value}"))
display(ipywidgets.VBox([slider, button, label]))"""


def test_a_button_changes_a_label(lab):
    lab.open(lab.write_notebook("button.ipynb", "x = 1", PANEL))
    lab.run_all_cells()
    assert lab.errors() == []
    panel = lab.output(1)
    expect(panel.get_by_text("not pressed")).to_be_visible()
    panel.get_by_role("slider").focus()
    lab.page.keyboard.press("ArrowRight")
    expect(panel.locator(".widget-readout")).to_have_text("4")
    lab.button("Run").click()
    expect(panel.get_by_text("pressed with 4")).to_be_visible()
    assert lab.screenshot("panel", panel).stat().st_size > 1000


def test_errors_are_collected(lab):
    lab.open(lab.write_notebook("errors.ipynb", "1 / 0", "print('never')"))
    lab.run_all_cells()
    assert lab.errors() == ["ZeroDivisionError: division by zero"]
    expect(lab.page.get_by_text("never", exact=True)).to_have_count(0)


def test_a_cell_is_run_from_the_keyboard(lab):
    lab.open(lab.write_notebook("cells.ipynb", "print(6 * 7)", "print(2 ** 10)"))
    lab.run_cell(1)
    expect(lab.output(1)).to_have_text("1024")
    expect(lab.output(0)).to_have_text("")
    lab.run_cell(1)
    expect(lab.cell(1).locator(".jp-InputPrompt")).to_have_text("[2]:")


def test_theme_and_width(lab):
    lab.open(lab.write_notebook("theme.ipynb", "print('hello')"))
    background = "getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor"
    light = lab.page.evaluate(background)
    lab.set_theme("dark")
    assert lab.page.evaluate(background) != light
    lab.set_width(700)
    assert lab.page.evaluate("window.innerWidth") == 700
    lab.screenshot("dark-700")


def test_every_test_begins_in_the_light_theme(lab):
    lab.open(lab.write_notebook("light.ipynb", "print('hello')"))
    expect(lab.page.locator("body")).to_have_attribute("data-jp-theme-light", "true")


def test_the_server_has_its_own_home_and_ends_kernels(lab):
    code = "import os, pathlib; print(pathlib.Path.home(), os.environ['JUPYTER_CONFIG_DIR'])"
    lab.open(lab.write_notebook("home.ipynb", code))
    lab.run_all_cells()
    assert os.path.expanduser("~") not in lab.output(0).inner_text().split()  # noqa: PTH111
    assert len(lab.server.api("kernels")) == 1
    lab.server.shut_down_kernels()
    assert lab.server.api("kernels") == []
