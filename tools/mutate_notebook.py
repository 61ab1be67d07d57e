"""Make a copy of a notebook in which the first two variants of its main experiment are swapped.

    python -m tools.mutate_notebook notebooks/01-profiling.ipynb mutated.ipynb

The copy has the cells that lead to the main experiment, then one that swaps the variants (the slow
one is measured under the fast one's name), then the cells with claims about it and what they need:
now a claim must change. A notebook whose claims all hold does not check what it teaches;
tests/test_mutation.py sees to that.

That the claims hold where nothing is swapped is not run here again: the whole notebook is checked
for it. A copy that misses something could change a claim by that alone; then the two variants would
not have changed places, which the test reads from the ratio that it finds.

The convention: one code cell is tagged `main-experiment`; it ends by defining `experiment`, the
object that @lab.experiment made, and runs nothing.
"""

import argparse
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools.slice_notebook import dependent, needed, sources_of, with_cells

TAG = "main-experiment"
UNCHECKED = {"nbval-ignore-output", "nbval-skip"}
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
    """Give a copy with the claims about the main experiment, and its variants swapped.

    Raises:
        ValueError: not exactly one code cell is tagged main-experiment, or no claim is about it.
    """
    sources = sources_of(notebook)
    main, claims = main_and_claims(notebook)
    path = list(needed(sources, [main, *claims]).items())
    first = sum(number <= main for number, _ in path)
    return with_cells(notebook, [*path[:first], (None, SWAP), *path[first:]])


def main_and_claims(notebook: NotebookNode) -> tuple[int, list[int]]:
    """Give the numbers of the main experiment's cell, and of those with decided claims about it.

    Raises:
        ValueError: as in `mutate`.
    """
    cells, sources = notebook.cells, sources_of(notebook)
    tagged = [number for number, cell in enumerate(cells) if TAG in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{len(tagged)} cells are tagged {TAG}; exactly one must be")
    (main,) = tagged
    claims = [n for n in dependent(sources, main, "experiment") if is_decided(cells[n])]
    if not claims:
        raise ValueError(f"no claim depends on `experiment`, which the cell tagged {TAG} defines")
    return main, claims


def is_decided(cell: NotebookNode) -> bool:
    """Whether a cell has printed a claim that held or did not, and nbval compares it."""
    text = "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )
    decided = "CONFIRMED: " in text or "REFUTED: " in text
    return decided and UNCHECKED.isdisjoint(cell.metadata.get("tags", []))


def main() -> None:
    """Read one notebook, write the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("copy", type=Path)
    arguments = parser.parse_args()
    nbformat.write(mutate(nbformat.read(arguments.notebook, as_version=4)), arguments.copy)


if __name__ == "__main__":
    main()
