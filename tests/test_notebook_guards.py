"""Every guard fails with its message, a good notebook passes, and the sanitizer keeps claims."""

import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns
from notebook_guards import GUARDS

import labkit
from labkit.results import Comparison
from labkit.trials import Trial

ROOT = Path(__file__).resolve().parent.parent
SANITIZER = ROOT / "tests" / "nbval_sanitize.cfg"
CLAIM = "int8 vs float32: 3.41x [3.20x, 3.60x]  CONFIRMED: at least 1.5x faster"


def printing(text, printed=None, tags=()):
    """A cell that prints a text, and the output that was saved for it."""
    output = new_output("stream", name="stdout", text=f"{printed or text}\n")
    return new_code_cell(f"print({text!r})", outputs=[output], metadata={"tags": list(tags)})


def quiet(code, **metadata):
    return new_code_cell(code, metadata=metadata)


def notebook(*cells, numbered=True, **metadata):
    if numbered:
        code = [cell for cell in cells if cell.cell_type == "code" and cell.source]
        for count, cell in enumerate(code, start=1):
            cell.execution_count = count
    return new_notebook(cells=list(cells), metadata=metadata)


def never_run():
    nb = notebook(quiet("x = 1"), printing(CLAIM))
    nb.cells[0].execution_count = None
    return nb


def out_of_order():
    nb = notebook(quiet("x = 1"), printing(CLAIM))
    nb.cells[0].execution_count = 3
    return nb


def division(**metadata):
    cell = quiet("1 / 0", **metadata)
    cell.outputs = [new_output("error", ename="ZeroDivisionError", evalue="division by zero")]
    return cell


def ignored(tag):
    return printing("3", tags=[tag])


NEEDS = "a vs b: 3.41x [3.20x, 3.60x]  {}: at least 1.5x faster (needs vnni)"
NOT_HERE = NEEDS.format("NOT HERE") + "\n    This processor has no VNNI instructions."

# name: the notebook, and the guard that fails with the beginning of its message.
BROKEN = {
    "never-run": (never_run(), "cells-were-run", "Cell 0 was never run, so nothing of it is"),
    "out-of-order": (out_of_order(), "cells-in-order", "the cells were not run from top to bottom"),
    "error": (
        notebook(division(), printing(CLAIM)),
        "no-errors",
        "Cell 0 was saved with an error (ZeroDivisionError: division by zero)",
    ),
    "ignored": (
        notebook(ignored("nbval-ignore-output"), ignored("nbval-skip"), printing(CLAIM)),
        "few-ignored",
        "the outputs of 2 of 3 code cells are not checked",
    ),
    "ignored-by-comment": (
        notebook(quiet("# NBVAL_IGNORE_OUTPUT\nx = 1"), printing(CLAIM)),
        "few-ignored",
        "the outputs of 1 of 2 code cells are not checked",
    ),
    "no-claim": (
        notebook(printing("3.41x")),
        "has-claim",
        "no checked output holds a claim that was decided",
    ),
    "open-claim": (
        notebook(printing(CLAIM.replace("CONFIRMED", "INCONCLUSIVE"))),
        "has-claim",
        "no checked output holds a claim that was decided",
    ),
    "claim-is-ignored": (
        notebook(
            printing(CLAIM, tags=["nbval-ignore-output"]), *(quiet("x = 1") for _ in range(9))
        ),
        "has-claim",
        "no checked output holds a claim that was decided",
    ),
    "widgets": (
        notebook(printing(CLAIM), widgets={}),
        "no-widget-state",
        "the notebook was saved with the state of its widgets",
    ),
    "long": (
        notebook(quiet("x = 1\n" * 18), quiet("# first\n" + "x = 1\n" * 18), printing(CLAIM)),
        "short-cells",
        "Cell 1 has 19 lines, at most 18 can be taken in at a glance; cut it in two with a",
    ),
}


def claim_now(now, saved=CLAIM):
    return notebook(printing(now, printed=saved), printing(CLAIM))


# name: the notebook, and what nbval must say of its cells.
EXECUTED = {
    "good": (
        notebook(
            new_markdown_cell("# A question"),
            quiet("x = 1"),
            printing(CLAIM.replace("3.", "4."), printed=CLAIM),
            quiet(""),
        ),
        ["passed", "passed", "passed"],
    ),
    "meant-error": (
        notebook(division(tags=["raises-exception"]), printing(CLAIM)),
        ["passed", "passed"],
    ),
    "dead-kernel": (
        notebook(
            quiet("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
            quiet("x = 1"),
            printing(CLAIM),
        ),
        ["failed", "skipped", "skipped"],
    ),
    "refuted": (claim_now(CLAIM.replace("CONFIRMED", "REFUTED")), ["failed", "passed"]),
    "other-threshold": (claim_now(CLAIM.replace("1.5x", "1.2x")), ["failed", "passed"]),
    # A machine that lacks what a claim needs says so, and that is no failure...
    "not-here": (claim_now(NOT_HERE, NEEDS.format("CONFIRMED")), ["passed", "passed"]),
    "only-here": (claim_now(NEEDS.format("CONFIRMED"), NOT_HERE), ["passed", "passed"]),
    # ... but a claim that is wrong, or another claim, is one.
    "wrong-here": (claim_now(NEEDS.format("REFUTED"), NOT_HERE), ["failed", "passed"]),
    "wrong": (claim_now(NEEDS.format("REFUTED"), NEEDS.format("CONFIRMED")), ["failed", "passed"]),
    "other-claim": (
        claim_now(NOT_HERE.replace("1.5x", "1.2x"), NEEDS.format("CONFIRMED")),
        ["failed", "passed"],
    ),
}


def run_nbval(folder, notebooks, *options):
    """Run pytest over notebooks; give the text of its report, and each test's fate and message."""
    for name, nb in notebooks.items():
        nbformat.write(nb, folder / f"{name}.ipynb")
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml"]
    command += ["-p", "tests.notebook_guards", "-p", "no:cacheprovider", "--color=no"]
    command += ["--nbval", "--nbval-current-env", f"--junitxml={report}"]
    done = subprocess.run(
        [*command, *options, folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    results = {name: {} for name in notebooks}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own file
        name = case.get("classname").removesuffix(".ipynb").rpartition(".")[2]
        fate, message = "passed", ""
        for child in case:
            fate = {"failure": "failed", "skipped": "skipped"}[child.tag]
            message = child.text
        results[name][case.get("name")] = fate, message
    return done.stdout, results


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run over all notebooks: starting pytest with nbval alone takes seconds."""
    notebooks = {name: nb for name, (nb, *_) in {**BROKEN, **EXECUTED}.items()}
    start = time.monotonic()
    output, results = run_nbval(tmp_path_factory.mktemp("notebooks"), notebooks)
    return output, results, time.monotonic() - start


@pytest.mark.parametrize("name", BROKEN)
def test_a_guard_fails_with_its_message(run, name):
    _, results, _ = run
    _, guard, message = BROKEN[name]
    failed = {test: text for test, (fate, text) in results[name].items() if fate == "failed"}
    assert list(failed) == [guard]
    assert f"{name}.ipynb: {message}" in failed[guard]
    assert "make notebooks" in failed[guard]
    assert set(results[name]) == set(GUARDS)  # no cell was executed


@pytest.mark.parametrize("name", EXECUTED)
def test_cells_pass_or_fail(run, name):
    output, results, _ = run
    fates = {test: fate for test, (fate, _) in results[name].items()}
    assert [fates.pop(guard) for guard in GUARDS] == ["passed"] * len(GUARDS), output
    assert list(fates.values()) == EXECUTED[name][1], output


def test_a_dead_kernel_ends_its_notebook_at_once(run):
    _, results, seconds = run
    assert "The kernel died" in results["dead-kernel"]["Cell 0"][1]
    assert seconds < 120  # nbval itself would wait for the cell's timeout, 300 s


@pytest.mark.parametrize("name", ["refuted", "other-threshold", "wrong", "other-claim"])
def test_a_changed_claim_is_named(run, name):
    _, results, _ = run
    message = results[name]["Cell 0"][1]
    assert "A claim changed." in message
    assert re.search(r"saved: .*CONFIRMED: at least 1.5x faster", message)
    assert re.search(r"now: .*(REFUTED: at least 1.5x|CONFIRMED: at least 1.2x|NOT HERE)", message)


def test_stop_at_claim_in_a_part_that_no_guard_would_let_pass(tmp_path):
    part = {"never-run": BROKEN["never-run"][0], "refuted": EXECUTED["refuted"][0]}
    output, results = run_nbval(tmp_path, part, "--no-guards", "--stop-at-claim")
    fates = {name: [fate for fate, _ in cells.values()] for name, cells in results.items()}
    assert fates == {"never-run": ["passed", "passed"], "refuted": ["failed", "skipped"]}, output
    assert "a claim changed in Cell 0" in results["refuted"]["Cell 1"][1]


# The sanitizer.


def sanitize(text):
    for regex, replacement in get_sanitize_patterns(SANITIZER.read_text()):
        text = re.sub(regex, replacement, text)
    return text


def test_nbval_reads_every_rule():
    text = SANITIZER.read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == 2 * len(get_sanitize_patterns(text))
    assert text.isascii()  # nbval opens it with the encoding of the machine


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("took 980 µs", "took 1.02 ms"),
        ("9-10 ms", "11.5 ms"),
        ("128 MiB (134,217,728 bytes)", "1.2 GiB (1,288,490,188 bytes)"),
        ("accuracy 97 %", "accuracy 97.5%"),
        ("3.41x [3.20x, 3.60x]", "1x [0x, infx]"),
        (
            "12.3 GB/s, 45 GFLOP/s, 8 samples per second",
            "9 GB/s, 1.2 TFLOP/s, 9 samples per second",
        ),
        ("[0.518x, ∞x] 1.23 k images/s", "[0x, 1.000x] 9 images/s"),
        ("median of 37 samples of 12", "median of 1,001 samples of 1"),
        ("inconclusive after 37 rounds", "inconclusive after 1,101 rounds"),
        ("<f at 0x7f3a00>, pid 12, ipykernel_77", "<f at 0x7f3b01>, pid 9, ipykernel_123"),
        ("/srv/ipykernel_12/34.py:3: UserWarning", "/home/x/y.py:3: UserWarning"),
        ("2026-11-21T03:04:05Z, 3:04", "2027-01-02, 12:00:01"),
        ("0  int8  0.00123   41  faster", "0  int8     12.1  7  faster"),
        ("<td>37</td><td>1.23e-05</td>", "<td>1101</td> <td>0.1</td>".replace("> <", "><")),
        ("machine: A, 2 cores, 8 GiB", "machine: B, 64 cores"),
        ("a\nnoise: 20 % more. Remedy: close it.\nb", "a\nb"),
        ("<ul><li>drift: 3 %. Remedy: wait.</li></ul>", "<ul></ul>"),
        ("<svg a='1'><path d='M1,2'/></svg>", "<svg a='2'></svg>"),
        ("Picture: b 2.00x, faster.", "Picture: b 1.01x, the same."),
        ("|------|", "|---------|"),
        (
            "7 function calls (6 primitive calls) in 0.1 seconds",
            "1,234 function calls (99 primitive calls) in 3 seconds",
        ),
        (
            "   ncalls  tottime\n      120    0.012 {sum}",
            "   ncalls  tottime\n   7/2    10.3 {sum}",
        ),
    ],
)
def test_measured_numbers_are_not_compared(one, other):
    assert sanitize(one) == sanitize(other)


@pytest.mark.parametrize(
    "text",
    [
        CLAIM.partition("  ")[2],
        "REFUTED: error < 1e-3 after 5 rounds in 20 ms",
        "int8 float32 conv2d layer3",
        "torch.Size([64, 256]) 256x256 size=1024 threads=4 epoch 3",
        "torch 2.13.0",
        "<td>int8</td>",
    ],
)
def test_what_was_chosen_is_compared(text):
    assert sanitize(text) == text


def test_numbers_after_the_element_of_a_claim_are_not_kept():
    row = "<td>CONFIRMED: at least 1.5x</td><td>{}x</td>"
    assert sanitize(row.format(3)) == sanitize(row.format(2.5))
    assert "CONFIRMED: at least 1.5x</td>" in sanitize(row.format(3))


def test_the_machine_is_not_compared():
    line = str(labkit.machine())
    assert sanitize(f"before\n{line}\nafter") == "before\n<machine>\nafter"
    assert sanitize(f"<p>{line}</p>") == "<p><machine></p>"


def test_results_are_compared_by_their_claims():
    trials = {name: Trial(name, (1.0,), (0,)) for name in ("a", "b")}
    html = Comparison(trials)._repr_html_()
    assert sanitize(f"<b>{html}</b>{html}") == "<b><result></b><result>"
