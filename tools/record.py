"""Measure the experiments of notebooks on this machine, and keep the results with the project.

    python tools/record.py                              # all notebooks
    python tools/record.py notebooks/02-gpu-vs-cpu.ipynb

The code is that of the notebook: the cells tagged `record` run in order, the last of them defines
`recordings`, a dict of name to a function that measures. Each result is written to
data/recorded/MACHINE/NOTEBOOK NAME.json; one that is there already is not measured again.
"""

import argparse
import os
import re
from pathlib import Path

import nbformat

import labkit as lab

ROOT = Path(__file__).resolve().parent.parent
TAG = "record"


def folder_name(machine: lab.Machine) -> str:
    """Give a short name of the machine that is fit for a folder: its accelerator, or processor."""
    names = [a.name for a in machine.accelerators or ()]
    text = names[0] if names else machine.processor
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def experiments_of(notebook: Path) -> dict:
    """Run the tagged cells of a notebook and give its `recordings`; empty without such cells."""
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [cell.source for cell in cells if TAG in cell.metadata.get("tags", [])]
    # As in a kernel: functions of the main module travel to the worker by value.
    namespace = {"__name__": "__main__"}
    for source in tagged:
        exec(compile(source, notebook.name, "exec"), namespace)  # noqa: S102
    return namespace.get("recordings", {})


def record(notebook: Path, folder: Path) -> None:
    """Measure what a notebook wants recorded and is not there yet."""
    for name, measure in experiments_of(notebook).items():
        path = folder / f"{notebook.stem} {name}.json"
        if path.exists():
            print(f"{path.name}: is there already")
            continue
        print(f"{path.name}: measuring", flush=True)
        result = measure()
        folder.mkdir(parents=True, exist_ok=True)
        result.save(path)
        print(result, flush=True)


def main() -> None:
    """Record the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", type=Path, nargs="*")
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "recorded")
    arguments = parser.parse_args()
    given = arguments.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    notebooks = [path.resolve() for path in given]
    folder = arguments.folder.resolve() / folder_name(lab.machine(accelerators=True))
    # Notebooks name files from where they are.
    os.chdir(ROOT / "notebooks")
    for notebook in notebooks:
        record(notebook, folder)


if __name__ == "__main__":
    main()
