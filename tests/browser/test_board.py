"""The teacher's notebook in a real JupyterLab: records appear on the board as they arrive."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="Playwright is missing: pip install -c constraints.txt -e '.[test]'",
)
expect = sync_api.expect

ROOT = Path(__file__).resolve().parents[2]
CLASS = ROOT / "data" / "class"


def test_records_appear_while_the_board_looks(lab):
    # As far as the panel: `make test-notebooks` runs all cells.
    notebook = nbformat.read(ROOT / "teacher" / "board.ipynb", as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    (lab.server.root / "teacher").mkdir(exist_ok=True)
    lab.open(lab.write_notebook("teacher/board-panel.ipynb", *sources[:2]))
    lab.run_all_cells()
    assert lab.errors() == []
    lab.set_width(1200, 2400)
    board = lab.page.locator(".labkit-board")
    expect(board.get_by_role("img", name="The same experiment on each machine")).to_be_visible()
    expect(board.get_by_text("13 records of 2 experiments")).to_be_visible()
    lab.screenshot("example", board)

    folder = lab.server.root / "class of today"
    folder.mkdir()
    board.get_by_label("folder").fill(str(folder))
    board.get_by_label("folder").press("Enter")
    expect(board.get_by_text("With a shared folder: set LABKIT_RECORDS")).to_be_visible()
    expect(board.get_by_role("img")).to_have_count(0)
    lab.screenshot("empty", board)

    first, second = sorted(CLASS.glob("*.json"))[:2]
    text = first.read_text(encoding="utf-8")
    (folder / first.name).write_text(text[: len(text) // 2], encoding="utf-8")
    expect(board.get_by_text(f"Not read: {first.name}")).to_be_visible()
    (folder / first.name).write_text(text, encoding="utf-8")
    expect(board.get_by_text("Closest: Ada (4.00x).")).to_be_visible()
    expect(board.get_by_text("Not read")).to_have_count(0)
    (folder / second.name).write_bytes(second.read_bytes())
    expect(board.get_by_text("2 records of 2 experiments")).to_be_visible()

    # By keyboard, as everything here.
    experiment = board.get_by_label("experiment")
    experiment.focus()
    experiment.press("ArrowDown")
    expect(board.get_by_text("bfloat16 against float32: 1 machine")).to_be_visible()
    board.get_by_label("look for new records").uncheck()
    lab.set_theme("dark")
    lab.set_width(700, 2400)
    lab.screenshot("arrived-700-dark", board)
    assert lab.errors() == []
