"""Run notebooks on clean kernels, in order, and save their outputs.

    python tools/execute_notebooks.py notebooks                 # all of a folder
    python tools/execute_notebooks.py notebooks/01-profiling.ipynb

A notebook whose execution failed is not saved. What is saved does not depend on when and by whom it
was run, as far as that is possible: no state of widgets, no times of execution, one kernel name.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

# The name that every Jupyter knows for its own Python, whatever it is called where this was run.
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(Exception):
    """A notebook did not run to its end."""


def find_notebooks(paths: list[Path]) -> list[Path]:
    """Give the notebooks of folders, in order of their names, and single ones as they come."""
    found = []
    for path in paths:
        if path.is_dir():
            found += sorted(path.glob("*.ipynb"))
        elif path.is_file():
            found.append(path)
        else:
            raise NotebookError(f"{path}: there is no such notebook or folder")
    return found


def clean(notebook: NotebookNode) -> None:
    """Remove what differs from one run to the next, or from one machine to the next."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = dict(KERNELSPEC)
    # ipykernel writes the exact version of Python here; nothing reads it.
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("ExecuteTime", None)


def describe_failure(path: Path, notebook: NotebookNode, error: Exception) -> str:
    """Name the notebook, the cell and the reason, with the cell's code."""
    if isinstance(error, CellExecutionError):
        # IPython colours its tracebacks, which is noise in a log.
        reason = error.traceback if sys.stderr.isatty() else ANSI.sub("", error.traceback)
    elif isinstance(error, CellTimeoutError):
        reason = "the cell ran longer than --timeout allows"
    else:
        reason = "the kernel died (killed, out of memory, or crashed)"
    # Cells run from top to bottom: the last one that was started is the one that failed.
    started = [
        (number, cell)
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and "execution" in cell.metadata
    ]
    number, cell = started[-1]
    return f"{path}: cell {number} failed; the notebook was not saved.\n\n{cell.source}\n\n{reason}"


def execute(path: Path, *, timeout_s: float) -> None:
    """Run one notebook in its own folder and save it.

    Raises:
        NotebookError: a cell raised, ran too long, or killed its kernel. The file is as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
    # The bar of a training is a widget, and its saved text stands at 0 % for ever.
    os.environ["TQDM_DISABLE"] = "1"
    client = NotebookClient(
        notebook,
        kernel_name=KERNELSPEC["name"],
        timeout=timeout_s,
        record_timing=True,  # tells which cells were started; `clean` takes it out
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise NotebookError(describe_failure(path, notebook, error)) from None
    clean(notebook)
    # Whoever reads the notebook meanwhile sees the old one or the new one, never half of it.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        nbformat.write(notebook, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main() -> int:
    """Run the notebooks of the command line; stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, help="notebooks, or folders of them")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a cell (600)")
    arguments = parser.parse_args()
    try:
        notebooks = find_notebooks(arguments.paths)
        for path in notebooks:
            start = time.monotonic()
            execute(path, timeout_s=arguments.timeout)
            print(f"{path}: saved after {time.monotonic() - start:.0f} s", flush=True)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    if not notebooks:
        print("no notebooks found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
