"""Make a copy of a notebook in which the first two variants of its main experiment are swapped.

    python tools/mutate_notebook.py notebooks/01-profiling.ipynb mutated.ipynb

The copy measures the slow variant under the fast one's name. A notebook that still passes nbval
then does not check what it teaches; tests/test_mutation.py sees to that.

The convention: one code cell is tagged `main-experiment`; it ends by defining `experiment`, the
object that @lab.experiment made, and runs nothing. The copy gets one more cell after it, which
wraps `experiment.function`.
"""

import argparse
import copy
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

TAG = "main-experiment"
SWAP = """\
import functools


def swapped(function):
    @functools.wraps(function)
    def variants(*args, **kwargs):
        named = function(*args, **kwargs)
        (first, a), (second, b), *rest = named.items()
        return {first: b, second: a, **dict(rest)}

    return variants


experiment.function = swapped(experiment.function)
del swapped"""


def mutate(notebook: NotebookNode) -> NotebookNode:
    """Give a copy whose main experiment has its first two variants swapped.

    Raises:
        ValueError: not exactly one code cell is tagged main-experiment.
    """
    mutated = copy.deepcopy(notebook)
    tagged = [
        number for number, cell in enumerate(mutated.cells) if TAG in cell.metadata.get("tags", [])
    ]
    if len(tagged) != 1:
        raise ValueError(f"{len(tagged)} cells are tagged {TAG}; exactly one must be")
    mutated.cells.insert(tagged[0] + 1, new_code_cell(SWAP))
    # The guards want the counts of a clean run.
    run = [cell for cell in mutated.cells if cell.cell_type == "code" and cell.source.strip()]
    for count, cell in enumerate(run, start=1):
        cell.execution_count = count
    return mutated


def main() -> None:
    """Read one notebook, write the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("copy", type=Path)
    arguments = parser.parse_args()
    nbformat.write(mutate(nbformat.read(arguments.notebook, as_version=4)), arguments.copy)


if __name__ == "__main__":
    main()
