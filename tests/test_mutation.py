"""A notebook checks what it teaches: with two variants swapped, a claim of it must change."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MUTATE = ROOT / "tools" / "mutate_notebook.py"


def run_mutated(notebook, folder):
    """Swap the variants in a copy of a notebook, beside a copy's data, and run nbval on it."""
    (folder / "notebooks").mkdir()
    if (ROOT / "data").is_dir():
        (folder / "data").symlink_to(ROOT / "data")
    mutated = folder / "notebooks" / notebook.name
    subprocess.run([sys.executable, MUTATE, notebook, mutated], check=True)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml"]
    command += ["-p", "tests.notebook_guards", "-p", "no:cacheprovider", "--color=no"]
    command += ["--nbval", "--nbval-current-env", "--stop-at-claim", mutated]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_swapped_variants_change_a_claim(notebook, tmp_path):
    result = run_mutated(notebook, tmp_path)
    assert result.returncode != 0, f"{notebook.name} passes with its variants swapped"
    assert "A claim changed." in result.stdout, result.stdout


# The tool itself, on a notebook small enough to judge by eye.

DEFINE = """\
class Experiment:
    def __init__(self, function):
        self.function = function

@Experiment
def experiment(size):
    return {"slow": 2 * size, "fast": size, "other": 0}"""
CLAIMS = {
    "checks": """\
variants = experiment.function(size=3)
state = "CONFIRMED" if variants["fast"] < variants["slow"] else "REFUTED"
print(f"fast vs slow: {variants['slow'] / variants['fast']}x  {state}: faster")""",
    "checks nothing": 'print("fast vs slow: 2.0x  CONFIRMED: faster")',
}


def small_notebook(claim, tags=("main-experiment",)):
    output = new_output("stream", name="stdout", text="fast vs slow: 2.0x  CONFIRMED: faster\n")
    define = new_code_cell(DEFINE, execution_count=1, metadata={"tags": list(tags)})
    return new_notebook(cells=[define, new_code_cell(claim, execution_count=2, outputs=[output])])


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_mutation_is_seen_where_there_is_a_check(tmp_path, claim):
    path = tmp_path / "small.ipynb"
    nbformat.write(small_notebook(CLAIMS[claim]), path)
    result = run_mutated(path, tmp_path)
    seen = claim == "checks"
    assert (result.returncode != 0) is seen, result.stdout
    assert ("A claim changed." in result.stdout) is seen


def test_a_notebook_without_the_tag_is_refused(tmp_path):
    path = tmp_path / "untagged.ipynb"
    nbformat.write(small_notebook(CLAIMS["checks"], tags=()), path)
    command = [sys.executable, MUTATE, path, tmp_path / "mutated.ipynb"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "0 cells are tagged main-experiment; exactly one must be" in result.stderr
