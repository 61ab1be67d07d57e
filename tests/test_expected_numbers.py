"""The table of expected numbers says what the notebooks printed, and nothing else."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.expected_numbers import main

ROOT = Path(__file__).resolve().parent.parent
STATES = "CONFIRMED|REFUTED|INCONCLUSIVE|NOT HERE"


@pytest.fixture
def put(capsys):
    """Call the tool; give its exit status, what it writes, and what it complains of."""

    def call(*arguments):
        status = main(arguments)
        return status, *capsys.readouterr()

    return call


def write(path, *texts, machine="a laptop"):
    """A notebook whose cells have printed these texts, the second under a heading."""
    cells = [new_markdown_cell("# Title\n\n## 1. First")]
    for number, text in enumerate([f"machine: {machine}\n", *texts], 1):
        cell = new_code_cell("1", execution_count=number)
        cell.outputs = [new_output("stream", name="stdout", text=text)]
        cells.append(cell)
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path.parent


@pytest.fixture
def kinds(tmp_path):
    quick = write(
        tmp_path / "quick" / "00-a.ipynb",
        "int8 vs float32: 3.41x [3.20x, 3.60x]  CONFIRMED: at least 1.5x faster (needs vnni)\n"
        "not a claim: CONFIRMED by nobody\n",
        "a|b: 92%  CONFIRMED: over 80 %\nagree:   CONFIRMED: they agree\n",
        machine="two cores",
    )
    slow = write(
        tmp_path / "slow" / "00-a.ipynb",
        "int8 vs float32: 1.21x [0.90x, 1.60x]  INCONCLUSIVE: at least 1.5x faster (needs vnni)\n",
        "a|b: 10%  REFUTED: over 80 %\n"
        "gpu vs cpu: not measured here  NOT HERE: faster (needs cuda)\n    This needs a GPU.\n",
        machine="half a core",
    )
    return f"quick={quick}", f"slow={slow}"


def test_each_claim_is_a_row_and_each_kind_a_column(put, kinds):
    rows = put(*kinds)[1].splitlines()
    assert rows[0] == "### 00-a"
    assert rows[2] == "| cell | claim | quick | slow |"
    assert rows[4] == (
        "| [2] | int8 vs float32: at least 1.5x faster (needs vnni) | 3.41x [3.20x, 3.60x] "
        "| 1.21x [0.90x, 1.60x] **INCONCLUSIVE** |"
    )
    assert rows[5] == r"| [3] | a\|b: over 80 % | 92% | 10% **REFUTED** |"


def test_what_only_one_kind_has_is_not_run_on_the_other(put, kinds):
    rows = put(*kinds)[1].splitlines()
    assert "| [3] | agree: they agree | yes | not run |" in rows
    assert "| [3] | gpu vs cpu: faster (needs cuda) | not run | NOT HERE |" in rows


def test_the_refuted_are_named_with_their_cell_and_section(put, kinds):
    text = put(*kinds)[1]
    assert "- **quick**: 3 CONFIRMED. two cores." in text
    assert "- **slow**: 1 INCONCLUSIVE, 1 REFUTED, 1 NOT HERE. half a core." in text
    assert "  - REFUTED: 00-a, cell [3] (1. First): a|b: over 80 %; seen: 10%" in text


def test_intervals_leaves_the_speed_ups(put, kinds):
    rows = [row for row in put("--intervals", *kinds)[1].splitlines() if row[:3] == "| ["]
    assert len(rows) == 1
    assert rows[0].startswith("| [2] | int8 vs float32")


def test_a_claim_that_is_printed_twice_is_two_rows(put, tmp_path):
    one = "a vs b: 2.00x [1.90x, 2.10x]  CONFIRMED: faster\n"
    two = "a vs b: 3.00x [2.90x, 3.10x]  CONFIRMED: faster\n"
    text = put(f"here={write(tmp_path / 'here' / '00-a.ipynb', one, two)}")[1]
    assert re.findall(r"\| (\d\.00x) ", text) == ["2.00x", "3.00x"]


def test_all_claims_of_the_notebooks_are_found(put):
    saved = "".join(path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb"))
    _, text, _ = put(f"saved={ROOT / 'notebooks'}")
    counted = sum(int(n) for n in re.findall(rf"(\d+) (?:{STATES})", text))
    assert counted == len(re.findall(rf'^ +".*  (?:{STATES}): ', saved, re.MULTILINE))
    assert counted > 100
    assert "REFUTED" not in text


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("notebooks", "write NAME=FOLDER"),
        ("a=missing", "missing: there is no such notebook or folder"),
        ("a=docs", "docs: no claim was printed there; run the notebooks first"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_out(put, argument, reason, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, text, complaint = put(argument)
    assert (status, text) == (1, "")
    assert reason in complaint
