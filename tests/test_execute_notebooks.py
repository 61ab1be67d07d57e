"""`make notebooks` saves what ran, and only that."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "execute_notebooks.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the tool once on a folder: a good notebook first, then one that fails, then a third."""
    folder = tmp_path_factory.mktemp("notebooks")
    stale = new_code_cell("x = 1", execution_count=7, metadata={"execution": {"iopub": "2020"}})
    cells = {
        "0-good": [
            stale,
            new_code_cell("import sys\nprint(x); print(2); print(3, file=sys.stderr)"),
            new_code_cell("raise ValueError('meant')", metadata={"tags": ["raises-exception"]}),
            new_code_cell("from pathlib import Path\nPath.cwd().name"),
            new_code_cell("import ipywidgets\nipywidgets.IntSlider(description='size')"),
        ],
        "1-failing": [new_code_cell("x = 1"), new_code_cell("1 / 0"), new_code_cell("x = 2")],
        "2-never": [new_code_cell("x = 1")],
    }
    for name, content in cells.items():
        spec = {"name": "my-env", "display_name": "My environment", "language": "python"}
        metadata = {"kernelspec": spec, "widgets": {}}
        nbformat.write(new_notebook(cells=content, metadata=metadata), folder / f"{name}.ipynb")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = subprocess.run(
        [sys.executable, TOOL, folder], capture_output=True, text=True, check=False
    )
    return folder, before, result


def test_a_good_notebook_is_saved_clean(run):
    folder, _, _ = run
    notebook = nbformat.read(folder / "0-good.ipynb", as_version=4)
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3, 4, 5]
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]
    streams = {output.name: output.text for output in notebook.cells[1].outputs}
    assert streams == {"stdout": "1\n2\n", "stderr": "3\n"}
    assert notebook.cells[3].outputs[0].data["text/plain"] == repr(folder.name)


def test_a_failure_names_notebook_cell_and_traceback(run):
    folder, _, result = run
    assert result.returncode == 1
    assert f"{folder / '1-failing.ipynb'}: cell 1 failed" in result.stderr
    assert "ZeroDivisionError: division by zero" in result.stderr


def test_a_failed_notebook_and_those_after_it_are_as_they_were(run):
    folder, before, _ = run
    for name in ("1-failing.ipynb", "2-never.ipynb"):
        assert (folder / name).read_bytes() == before[name]
    assert sorted(path.name for path in folder.iterdir()) == sorted(before)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
        ("import time; time.sleep(60)", "longer than --timeout allows"),
    ],
)
def test_a_cell_that_never_ends_well_is_named(tmp_path, code, reason):
    path = tmp_path / "bad.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("x = 1"), new_code_cell(code)]), path)
    before = path.read_bytes()
    result = subprocess.run(
        [sys.executable, TOOL, path, "--timeout=3"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "cell 1 failed" in result.stderr
    assert reason in result.stderr
    assert path.read_bytes() == before
