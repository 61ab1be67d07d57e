"""Take the pictures of README.md: the first five minutes, in a real JupyterLab in Chromium.

    python tools/screenshots.py                 # all, into docs/
    python tools/screenshots.py --folder /tmp   # somewhere else, to look at them first

What is photographed is what readers do: they open the first notebook, predict, run, look while an
interval narrows, sweep, and ask why. The numbers in the pictures are those of the machine that
took them. The server, the browser and the page are those of tests/browser.
"""

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from PIL import Image
from playwright.sync_api import Locator, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser import conftest as harness  # noqa: E402  (the project is no package)

WIDTH, HEIGHT, MARGIN = 1200, 800, 8
AT_MOST_BYTES = 150_000
LONG_MS = 120_000
FIRST, SECOND = "notebooks/00-start-here.ipynb", "notebooks/02-gpu-vs-cpu.ipynb"

# The two identical functions of notebook 00, on a panel of their own.
TWICE = """\
@lab.experiment(numbers=[1000, 10_000])
def the_same_twice(numbers):
    '''Identical code, twice: which one is faster?'''
    values = [float(n) for n in range(numbers)]

    def work():
        return sum(v * v for v in values)

    def same_work():
        return sum(v * v for v in values)

    return {"work": work, "same work": same_work}


the_same_twice.panel(budget_s=20, resolution=0.005, predict=False)"""
WHY = """\
display(big.explain("cpu, 1 thread"))
big.peaks[0].plot(lab.Comparison({"product": big.trials["cpu, 1 thread"]}))"""


def cell_with(notebook: str, text: str) -> str:
    """The code of a notebook's only cell that has this text in it."""
    cells = nbformat.read(ROOT / notebook, as_version=4).cells
    (found,) = [c.source for c in cells if c.cell_type == "code" and text in c.source]
    return found


@contextlib.contextmanager
def jupyterlab() -> Iterator[harness.LabPage]:
    """Open a page of a server of its own, with copies of the notebooks and of their data."""
    chromium = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, harness.CHROMIUM_NAMES))
    )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        base = Path(folder)
        root = base / "root"
        for name in ("notebooks", "data"):
            shutil.copytree(ROOT / name, root / name)
        process, log = harness.start_server(base, root)
        try:
            url, token = harness.wait_for_server(process, base / "runtime", log)
            server = harness.LabServer(url, token, root, base / "settings", process)
            browser = playwright.chromium.launch(
                executable_path=chromium, args=harness.CHROMIUM_ARGS
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            yield harness.LabPage(page, server, "screenshots")
            browser.close()
            server.shut_down_kernels()
        finally:
            harness.stop_group(process)


class Camera:
    """Takes pictures of a page into a folder, small enough for a front page."""

    def __init__(self, lab: harness.LabPage, folder: Path) -> None:
        self.lab = lab
        self.folder = folder

    def take(self, name: str, of: Locator | None = None, *, until: Locator | None = None) -> None:
        """Take the window, or all of its width where an element stands, down to another one."""
        page, area = self.lab.page, None
        if of is not None:
            page.set_viewport_size({"width": WIDTH, "height": 2000})
            of.evaluate("element => element.scrollIntoView({block: 'center'})")
            box = of.bounding_box()
            last = box if until is None else until.bounding_box()
            height = last["y"] + last["height"] - box["y"] + (MARGIN if until else 0)
            area = {"x": 0, "y": box["y"], "width": WIDTH, "height": height}
        self.save(name, page.screenshot(clip=area))
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    def save(self, name: str, png: bytes) -> None:
        """Write a picture with as many colours as its size allows.

        Raises:
            ValueError: it is too large with the fewest.
        """
        image = Image.open(io.BytesIO(png)).convert("RGB")
        for colours in (256, 128, 64, 32):
            small = io.BytesIO()
            image.quantize(colours, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
            if small.tell() <= AT_MOST_BYTES:
                (self.folder / f"{name}.png").write_bytes(small.getvalue())
                print(f"{name}.png: {image.width} x {image.height}, {small.tell()} bytes")
                return
        raise ValueError(f"{name}: {small.tell()} bytes with {colours} colours; show less of it")


def panel_of(lab: harness.LabPage, *cells: str) -> Locator:
    """Open a notebook of these cells, run them, and give the panel that the last one shows."""
    lab.open(lab.write_notebook("notebooks/first.ipynb", *cells))
    lab.run_all_cells()
    if lab.errors():
        raise RuntimeError(lab.errors())
    return lab.output(len(cells) - 1)


def done(panel: Locator) -> None:
    """Wait for the end of a run or a sweep."""
    button = panel.get_by_role("button", name="Run", exact=True)
    expect(button).to_be_disabled()
    expect(button).to_be_enabled(timeout=LONG_MS)
    # The last picture is painted after that, and comes later than the words.
    panel.page.wait_for_function(
        """image => {
            const now = performance.now();
            if (image.src !== window.labSource) {
                [window.labSource, window.labSince] = [image.src, now];
            }
            return now - window.labSince > 2000;
        }""",
        arg=panel.locator("img").first.element_handle(),
        timeout=LONG_MS,
    )


def photograph(lab: harness.LabPage, camera: Camera) -> None:
    """Do what readers do in their first minutes, and take a picture of each step."""
    lab.open(FIRST, sidebar=True)
    camera.take("first-1-open")

    start = cell_with(FIRST, "lab.machine().line()")
    panel = panel_of(
        lab, start, cell_with(FIRST, "def sum_of_squares"), cell_with(FIRST, "experiment.panel(")
    )
    panel.get_by_label("prediction").fill("20")
    camera.take("first-2-predict", panel)
    lab.button("Run", panel).click()
    done(panel)
    camera.take("first-4-verdict", panel)
    lab.button("Sweep", panel).click()
    done(panel)
    # The table below has a row for every point and variant.
    camera.take("first-5-sweep", panel, until=panel.locator(".labkit-verdict").last)

    panel = panel_of(lab, start, TWICE)
    lab.button("Run", panel).click()
    # Far enough that the narrowing is to be seen; the picture comes later than the words.
    lab.page.wait_for_function(
        "panel => Number((/after (\\d+) rounds/.exec(panel.innerText) || [0, 0])[1]) > 150",
        arg=panel.element_handle(),
        timeout=LONG_MS,
    )
    picture = panel.locator("img").first
    expect(picture).not_to_have_attribute("src", picture.get_attribute("src"))
    camera.take("first-3-narrowing", panel)
    # It was taken in the middle of a run.
    expect(lab.button("Stop", panel)).to_be_enabled()

    panel = panel_of(
        lab,
        cell_with(SECOND, "lab.machine("),
        cell_with(SECOND, "def product_on"),
        cell_with(SECOND, "big = product.run"),
        WHY,
    )
    camera.take("first-6-why", panel)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "docs", help="where to (docs)")
    folder = parser.parse_args().folder
    with jupyterlab() as lab:
        photograph(lab, Camera(lab, folder))


if __name__ == "__main__":
    main()
