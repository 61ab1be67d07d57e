"""A class on one machine: eight notebooks at once, half a core each; none claims what is not so.

Of each notebook its main experiment and the first claim about it; with LABKIT_WHOLE_CLASS set, as
`make class` does, all its cells, which takes a quarter of an hour.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from labkit.cgroups import ROOT
from tools.expected_numbers import claims_of
from tools.mutate_notebook import main_and_claims
from tools.slice_notebook import needed, sources_of, with_cells

WHOLE = bool(os.environ.get("LABKIT_WHOLE_CLASS"))
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))[:8]
RUN = """
import os, sys, time
began = time.monotonic()
if sys.argv[2]:
    with open(sys.argv[2], "w") as members:
        members.write(str(os.getpid()))
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    nbclient.NotebookClient(notebook, timeout=1200).execute()
finally:
    nbformat.write(notebook, sys.argv[1])
    print(f"{time.monotonic() - began:.0f} s")
"""


@pytest.fixture
def seats():
    """For each learner the file that takes members of a quota of half a core; "" without quotas."""
    folder = ROOT / "cpu"
    made = []
    try:
        for number in range(len(NOTEBOOKS)):
            seat = folder / f"labkit-seat-{os.getpid()}-{number}"
            seat.mkdir()
            made.append(seat)
            period_us = int((seat / "cpu.cfs_period_us").read_text())
            (seat / "cpu.cfs_quota_us").write_text(str(period_us // 2))
    except OSError:
        yield [""] * len(NOTEBOOKS)
    else:
        yield [str(seat / "cgroup.procs") for seat in made]
    for seat in made:
        seat.rmdir()


def exercise(path):
    """The main experiment of a notebook, and the first of its claims, with all that they need."""
    notebook = nbformat.read(path, as_version=4)
    if WHOLE:
        return notebook
    main, claims = main_and_claims(notebook)
    return with_cells(notebook, needed(sources_of(notebook), [main, claims[0]]).items())


@pytest.mark.alone
@pytest.mark.skipif(sys.platform == "win32", reason="there, people do not share a computer")
def test_eight_learners_at_once_finish_and_no_claim_is_falsely_decided(seats, tmp_path):
    (tmp_path / "data").symlink_to(NOTEBOOKS[0].parents[1] / "data")
    queue, class_ = tmp_path / "queue", tmp_path / "notebooks"
    queue.mkdir()
    class_.mkdir()
    learners, expected = [], {}
    for path, seat in zip(NOTEBOOKS, seats, strict=True):
        own, copy = tmp_path / path.stem, class_ / path.name
        own.mkdir()
        nbformat.write(exercise(path), copy)
        expected[path.stem] = claims_of(copy)
        # Temporary folders of their own, as on a hub; the queue is what they share.
        environment = os.environ | {"TMPDIR": str(own), "LABKIT_QUEUE": str(queue)}
        learners.append(
            subprocess.Popen(
                [sys.executable, "-c", RUN, str(copy), seat],
                cwd=class_,
                env=environment | {"XDG_DATA_HOME": str(own), "XDG_RUNTIME_DIR": str(own)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = {path.stem: p.communicate()[0] for path, p in zip(NOTEBOOKS, learners, strict=True)}
    assert [p.returncode for p in learners] == [0] * len(learners), said

    found = {path.stem: claims_of(class_ / path.name) for path in NOTEBOOKS}
    decided = 0
    for name, claims in expected.items():
        assert claims
        assert [line.claim for line in found[name]] == [line.claim for line in claims]
        for saved, now in zip(claims, found[name], strict=True):
            assert now.state in {saved.state, "INCONCLUSIVE", "NOT HERE"}, (name, now)
            decided += now.state == saved.state
        states = Counter(line.state for line in found[name])
        print(f"{name}: {said[name].splitlines()[-1]}, {dict(states)}")
    # That nobody is wrong would be easy if nobody said anything.
    assert decided >= len(NOTEBOOKS) / 2
    if seats[0]:
        texts = [(class_ / path.name).read_text(encoding="utf-8") for path in NOTEBOOKS]
        notice = "the processor quota stopped this container"
        assert sum(notice in text for text in texts) >= len(NOTEBOOKS) / 2
