"""A notebook checks what it teaches: with two variants swapped, a claim of it must change."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools.mutate_notebook import SWAP, mutate

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# A claim about a ratio, as the report shows it: what was seen, and what was asked for.
NOW = re.compile(r"^  now: .*: ([\d.e-]+)x \[.*REFUTED: at least ([\d.]+)x faster", re.MULTILINE)


def run_mutated(folder, notebooks, *options):
    """Write mutated copies of notebooks beside a copy's data, and run nbval on them.

    Gives for each the copy's cells, and the messages of those that failed by their numbers; and all
    that was printed.
    """
    (folder / "data").symlink_to(ROOT / "data")
    copies, report = folder / "notebooks", folder / "report.xml"
    copies.mkdir()
    cells = {}
    for name, notebook in notebooks.items():
        mutated = mutate(notebook)
        nbformat.write(mutated, copies / f"{name}.ipynb")
        cells[name] = mutated.cells
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml"]
    command += ["-p", "tests.notebook_guards", "-p", "no:cacheprovider", "--color=no"]
    command += ["--nbval", "--nbval-current-env", "--no-guards", f"--junitxml={report}"]
    done = subprocess.run(
        [*command, *options, copies], cwd=ROOT, capture_output=True, text=True, check=False
    )
    failed = {name: {} for name in notebooks}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own file
        name = case.get("classname").removesuffix(".ipynb").rpartition(".")[2]
        for problem in [*case.iter("failure"), *case.iter("error")]:
            failed[name][int(case.get("name").removeprefix("Cell "))] = problem.text
    return {name: (cells[name], failed[name]) for name in notebooks}, done.stdout


@pytest.fixture(scope="module")
def results(request, tmp_path_factory):
    """One run over all that were asked for: starting pytest with nbval alone takes seconds."""
    calls = [i.callspec for i in request.session.items if i.path == request.path and "[" in i.name]
    paths = {call.params["path"] for call in calls if "path" in call.params}
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in sorted(paths)}
    return run_mutated(tmp_path_factory.mktemp("mutated"), notebooks, "--stop-at-claim")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_claim_that_held_changes_when_the_variants_are_swapped(path, results):
    by_name, output = results
    cells, failed = by_name[path.stem]
    assert failed, f"{path.name} passes with its variants swapped:\n{output}"
    # Nothing else may fail: a cell that was left out would be missed by the one that needs it.
    ((number, message),) = failed.items()
    assert "A claim changed." in message, output
    assert "REFUTED: " in message, output
    assert number > swapped_in(cells), output
    # It changed because of the swap: the other way round, the variants are as far apart as claimed.
    for seen, threshold in NOW.findall(message):
        assert float(seen) * float(threshold) < 1, output


def test_the_ratios_of_most_notebooks_are_read(results):
    by_name, output = results
    found = [name for name, (_, failed) in by_name.items() if NOW.search("".join(failed.values()))]
    assert len(found) >= len(by_name) - 2, output


def swapped_in(cells):
    """The number of the cell that swaps the variants."""
    return [cell.source for cell in cells].index(SWAP)


# The tool itself, on a notebook small enough to judge by eye.

DEFINE = """\
class Experiment:
    def __init__(self, function):
        self.function = function

@Experiment
def experiment(size):
    return {"slow": 2 * size, "fast": size, "other": 0}"""
USE = """\
variants = experiment.function(size=3)
gain = variants["slow"] / variants["fast"]
state = "CONFIRMED" if gain > 1 else "REFUTED\""""
CLAIMS = {
    "checks": 'print(f"fast vs slow: {gain}x  {state}: faster")',
    "checks nothing": 'print(f"fast vs slow: {gain}x  CONFIRMED: faster")',
    "breaks": 'print(f"fast vs slow: {gain}x  {state}: {missing}")',
}


def small_notebook(claim, tags=("main-experiment",)):
    output = new_output("stream", name="stdout", text="fast vs slow: 2.0x  CONFIRMED: faster\n")
    cells = [new_code_cell(source) for source in (DEFINE, "1 / 0", USE, claim)]
    cells[0].metadata.tags, cells[3].outputs = list(tags), [output]
    return new_notebook(cells=cells)


def test_the_small_notebook_is_taken_apart():
    cells = mutate(small_notebook(CLAIMS["checks"])).cells
    assert [cell.source for cell in cells] == [DEFINE, SWAP, USE, CLAIMS["checks"]]
    assert len({cell.id for cell in cells}) == len(cells)


@pytest.fixture(scope="module")
def small_ones(tmp_path_factory):
    """One run over all of them: starting pytest with nbval alone takes seconds."""
    notebooks = {name: small_notebook(claim) for name, claim in CLAIMS.items()}
    return run_mutated(tmp_path_factory.mktemp("small"), notebooks)


@pytest.mark.parametrize(
    ("name", "fails_in", "message"),
    [
        ("checks", [3], "A claim changed."),
        ("checks nothing", [], ""),
        ("breaks", [3], "NameError"),
    ],
)
def test_the_mutation_is_seen_where_there_is_a_check(small_ones, name, fails_in, message):
    results, output = small_ones
    cells, failed = results[name]
    assert list(failed) == fails_in, output
    assert all(message in text for text in failed.values())
    assert swapped_in(cells) == 1


@pytest.mark.parametrize(
    ("notebook", "message"),
    [
        (small_notebook("", tags=()), "0 cells are tagged main-experiment; exactly one must be"),
        (small_notebook("print(1)"), "no claim depends on `experiment`"),
    ],
)
def test_a_notebook_without_the_tag_or_a_claim_is_refused(notebook, message):
    with pytest.raises(ValueError, match=message):
        mutate(notebook)
