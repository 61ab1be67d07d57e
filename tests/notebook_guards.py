"""A pytest plugin: what nbval lets pass and a notebook of this project must not do.

nbval compares the outputs of a run with the saved ones. By itself it accepts a notebook that checks
nothing: a cell saved without having been run is never compared. So each notebook gets one more
test for every guard below; a notebook that fails one is not executed at all, because what its
cells would show means little. Besides,

* a kernel that dies ends its notebook at once, and not after the cell's whole timeout;
* a claim that changed is named in the report, and not only as a difference of outputs;
* a claim that says NOT HERE (this machine lacks what it needs) does not fail.

The plugin is loaded by the project's `conftest.py`; for a notebook elsewhere, from the project's
root: ``python -m pytest -c pyproject.toml -p tests.notebook_guards --nbval FILE``.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from queue import Empty

import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import (
    IPyNbCell,
    NbCellError,
    find_comment_markers,
    find_metadata_tags,
)

SANITIZER = Path(__file__).with_name("nbval_sanitize.cfg")
REPAIR = "run all cells on a clean kernel and save: make notebooks"
MOST_IGNORED = 0.2
MOST_LINES = 18
POLL_S = 0.5

CLAIM = re.compile(
    r"^(?P<subject>[^\n]*?)(?P<state>\b(?:CONFIRMED|REFUTED|INCONCLUSIVE|NOT HERE)): "
    r"(?P<sentence>[^\n]*)(?P<why>(?:\n    [^\n]*)*)",
    re.MULTILINE,
)


# Guards: each gets a notebook (as JSON) and gives its complaints.


def code_cells(notebook):
    """Number and cell of every code cell that has code, numbered as nbval does."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [(number, cell) for number, cell in enumerate(cells) if source(cell).strip()]


def source(cell):
    return "".join(cell["source"])


def first_line(cell):
    return source(cell).strip().splitlines()[0]


def options(cell):
    """What nbval's tags and comments say about a cell; only the strict mode is known here."""
    found = {"check": True, **dict(find_metadata_tags(cell["metadata"]))}
    return {**found, **dict(find_comment_markers(source(cell)))}


def is_ignored(cell):
    return bool(options(cell).get("skip")) or not options(cell)["check"]


def text_outputs(cell):
    for output in cell["outputs"]:
        yield "".join(output.get("text", ""))
        yield "".join(output.get("data", {}).get("text/plain", ""))


def every_cell_was_run(notebook):
    for number, cell in code_cells(notebook):
        if cell["execution_count"] is None:
            yield f"Cell {number} was never run, so nothing of it is checked: {first_line(cell)}"


def cells_were_run_in_order(notebook):
    counts = [cell["execution_count"] for _, cell in code_cells(notebook)]
    if None not in counts and counts != list(range(1, len(counts) + 1)):
        yield (
            "the cells were not run from top to bottom on a clean kernel; their execution counts "
            f"are {', '.join(map(str, counts))}"
        )


def no_errors_saved(notebook):
    for number, cell in code_cells(notebook):
        for output in cell["outputs"]:
            if output["output_type"] == "error" and not options(cell).get("check_exception"):
                yield (
                    f"Cell {number} was saved with an error ({output['ename']}: "
                    f"{output['evalue']}); where it is meant, tag the cell raises-exception"
                )


def few_cells_are_ignored(notebook):
    cells = code_cells(notebook)
    ignored = [number for number, cell in cells if is_ignored(cell)]
    if len(ignored) > MOST_IGNORED * len(cells):
        yield (
            f"the outputs of {len(ignored)} of {len(cells)} code cells are not checked "
            f"(nbval-ignore-output or nbval-skip: Cell {', '.join(map(str, ignored))}); "
            f"at most {MOST_IGNORED:.0%} may be"
        )


def has_a_claim(notebook):
    states = [
        claim["state"]
        for _, cell in code_cells(notebook)
        if not is_ignored(cell)
        for text in text_outputs(cell)
        for claim in CLAIM.finditer(text)
    ]
    if not {"CONFIRMED", "REFUTED"} & set(states):
        seen = f"only {', '.join(states)}" if states else "none"
        yield (
            "no checked output holds a claim that was decided (a line with 'CONFIRMED: ...' or "
            f"'REFUTED: ...', as comparison.claim prints it); found {seen}"
        )


def no_widget_state(notebook):
    if "widgets" in notebook["metadata"]:
        yield "the notebook was saved with the state of its widgets (metadata.widgets)"


def cells_are_short(notebook):
    for number, cell in code_cells(notebook):
        lines = len(source(cell).splitlines())
        if lines > MOST_LINES:
            yield (
                f"Cell {number} has {lines} lines, at most {MOST_LINES} can be taken in at a "
                f"glance; cut it in two with a sentence between: {first_line(cell)}"
            )


GUARDS = {
    "cells-were-run": every_cell_was_run,
    "cells-in-order": cells_were_run_in_order,
    "no-errors": no_errors_saved,
    "few-ignored": few_cells_are_ignored,
    "has-claim": has_a_claim,
    "no-widget-state": no_widget_state,
    "short-cells": cells_are_short,
}


class GuardError(Exception):
    """A notebook breaks a rule; the message says which, and how to mend it."""


class GuardItem(pytest.Item):
    def __init__(self, *, complaints, **kwargs):
        super().__init__(**kwargs)
        self.complaints = complaints

    def runtest(self):
        if self.complaints:
            raise GuardError("\n".join([*self.complaints, f"To mend it, {REPAIR}"]))

    def repr_failure(self, excinfo):
        if isinstance(excinfo.value, GuardError):
            return f"{self.path.name}: {excinfo.value}"
        return super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}::{self.name}"


class GuardFile(pytest.File):
    def collect(self):
        notebook = json.loads(self.path.read_text(encoding="utf-8"))
        for name, guard in GUARDS.items():
            yield GuardItem.from_parent(self, name=name, complaints=list(guard(notebook)))


def pytest_addoption(parser):
    group = parser.getgroup("nbval")
    group.addoption(
        "--no-guards",
        action="store_true",
        help="for parts of a notebook: the guards are for whole ones, as people save them",
    )
    group.addoption(
        "--stop-at-claim",
        action="store_true",
        help="skip the rest of a notebook as soon as a claim of it differs from the saved one",
    )


def pytest_configure(config):
    if config.option.nbval and config.option.nbval_sanitize_with is None:
        config.option.nbval_sanitize_with = str(SANITIZER)
    patch_nbval()


def pytest_collect_file(file_path, parent):
    option = parent.config.option
    if file_path.suffix == ".ipynb" and option.nbval and not option.no_guards:
        return GuardFile.from_parent(parent, path=file_path)
    return None


def pytest_collection_modifyitems(config, items):
    """Guards first; and of a notebook that breaks one, the guards alone."""
    broken = {item.path for item in items if isinstance(item, GuardItem) and item.complaints}
    dropped = [item for item in items if isinstance(item, IPyNbCell) and item.path in broken]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    kept = [item for item in items if item not in set(dropped)]
    items[:] = sorted(kept, key=lambda item: not isinstance(item, GuardItem))


# The kernel and the comparison.


class KernelDiedError(RuntimeError):
    pass


def raise_if_dead(kernel):
    if not kernel.is_alive():
        raise KernelDiedError


def await_reply(self, msg_id, timeout=None):
    """Wait for a cell's reply as long as there is a kernel that could send it."""
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    while True:
        left = deadline - time.monotonic()
        try:
            message = self.get_message(stream="shell", timeout=max(0, min(POLL_S, left)))
        except Empty:
            raise_if_dead(self)
            if left <= 0:
                raise
            continue
        if message["parent_header"].get("msg_id") == msg_id:
            if message["content"]["status"] == "aborted":
                raise RuntimeError("the kernel refused to run the cell")
            return


def claims_in(outputs):
    texts = [text for output in outputs for text in text_outputs({"outputs": [output]})]
    return [claim for text in texts for claim in CLAIM.finditer(text)]


def excuse_claims_not_here(test, reference):
    """Give the saved text where a claim differs from it only because this machine lacks its need.

    The saved state may be anything when this machine says NOT HERE. The other way round (saved on
    a machine that lacked it) only CONFIRMED will do.
    """

    def key(claim):
        return claim["subject"].partition(":")[0], claim["sentence"]

    saved = {key(claim): claim for claim in CLAIM.finditer(reference)}

    def replace(claim):
        old = saved.get(key(claim))
        excused = old is not None and (
            claim["state"] == "NOT HERE"
            or (old["state"] == "NOT HERE" and claim["state"] == "CONFIRMED")
        )
        return old[0] if excused else claim[0]

    return CLAIM.sub(replace, test)


def patch_nbval():
    """Replace the methods of nbval that have no hook; a second call changes nothing."""
    if getattr(IPyNbCell, "labkit_guards", False):
        return
    IPyNbCell.labkit_guards = True
    RunningKernel.await_reply = await_reply
    runtest, compare_outputs = IPyNbCell.runtest, IPyNbCell.compare_outputs

    def guarded_runtest(self):
        if ended := getattr(self.parent, "ended", ""):
            pytest.skip(ended)
        try:
            raise_if_dead(self.parent.kernel)
            runtest(self)
        except KernelDiedError:
            self.parent.ended = f"the kernel died in Cell {self.cell_num}"
            message = (
                "The kernel died (killed, out of memory, or crashed); the cells after this one "
                "are skipped"
            )
            raise NbCellError(self.cell_num, message, self.cell.source) from None

    def guarded_compare(self, test, ref, skip_compare=None):
        test_claims = claims_in(test)
        if any("NOT HERE" in claim["state"] for claim in [*test_claims, *claims_in(ref)]):
            saved = "\n".join("\n".join(text_outputs({"outputs": [output]})) for output in ref)
            for output in test:
                if "text" in output:
                    output.text = excuse_claims_not_here(output.text, saved)
        same = compare_outputs(self, test, ref, skip_compare)
        if not same:
            # Compared without what was measured, shown with it.
            old = [(self.sanitize(claim[0]), claim[0]) for claim in claims_in(ref)]
            new = [(self.sanitize(claim[0]), claim[0]) for claim in claims_in(test)]
            if [line for line, _ in old] != [line for line, _ in new]:
                self.comparison_traceback[:0] = [
                    "A claim changed.",
                    *(f"  saved: {seen}" for line, seen in old if line not in dict(new)),
                    *(f"  now:   {seen}" for line, seen in new if line not in dict(old)),
                    "",
                ]
                if self.config.option.stop_at_claim:
                    self.parent.ended = f"a claim changed in Cell {self.cell_num}"
        return same

    IPyNbCell.runtest = guarded_runtest
    IPyNbCell.compare_outputs = guarded_compare
