"""A class on one machine: eight notebooks at once; none claims what is not so.

Each has half a core and 600 MB. What needs more is ended by the system, and has to say so.

Of each notebook its main experiment and the first claim about it; with LABKIT_WHOLE_CLASS set, as
`make class` does, all its cells, which takes some ten minutes.
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from tools.expected_numbers import claims_of
from tools.mutate_notebook import main_and_claims
from tools.slice_notebook import needed, sources_of, with_cells

WHOLE = bool(os.environ.get("LABKIT_WHOLE_CLASS"))
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))[:8]
GROUPS = Path("/sys/fs/cgroup")
MEMORY_BYTES = 600_000_000
RUN = """
import os, sys, time
began = time.monotonic()
for seat in sys.argv[2:]:
    with open(seat, "w") as members:
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
    """For each learner the files that take members of the groups that limit it, if any can."""
    made, files = [], []
    try:
        for path in NOTEBOOKS:
            name = f"labkit-seat-{os.getpid()}-{path.stem}"
            cpu, memory = GROUPS / "cpu" / name, GROUPS / "memory" / name
            for group in (cpu, memory):
                group.mkdir()
                made.append(group)
            files.append([str(group / "cgroup.procs") for group in (cpu, memory)])
            period_us = int((cpu / "cpu.cfs_period_us").read_text())
            (cpu / "cpu.cfs_quota_us").write_text(str(period_us // 2))
            (memory / "memory.limit_in_bytes").write_text(str(MEMORY_BYTES))
    except OSError:
        yield [[] for _ in NOTEBOOKS]
    else:
        yield files
    for group in made:
        group.rmdir()


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
        # Not below tmp_path: the name of a socket has to fit into 108 characters.
        own, copy = tempfile.mkdtemp(prefix=path.stem[:2]), class_ / path.name
        nbformat.write(exercise(path), copy)
        expected[path.stem] = claims_of(copy)
        # Temporary folders of their own, as on a hub; the queue is what they share.
        environment = os.environ | {"TMPDIR": own, "LABKIT_QUEUE": str(queue)}
        learners.append(
            subprocess.Popen(
                [sys.executable, "-c", RUN, str(copy), *seat],
                cwd=class_,
                env=environment | {"XDG_DATA_HOME": own, "XDG_RUNTIME_DIR": own},
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
        if [line.claim for line in found[name]] != [line.claim for line in claims]:
            # What was ended, for memory or at its deadline, may have no claim; others stay.
            text = (class_ / f"{name}.ipynb").read_text(encoding="utf-8")
            assert "killed during" in text or "hung during" in text, (name, found[name])
        left = iter(claims)
        for now in found[name]:
            saved = next((line for line in left if line.claim == now.claim), None)
            assert saved is not None, (name, now)
            assert now.state in {saved.state, "INCONCLUSIVE", "NOT HERE"}, (name, now)
            decided += now.state == saved.state
        states = Counter(line.state for line in found[name])
        print(f"{name}: {said[name].splitlines()[-1]}, {dict(states)}")
    # That nobody is wrong would be easy if nobody said anything.
    assert decided >= len(NOTEBOOKS) / 2
    assert all(found.values())
    if not seats[0]:
        pytest.skip("all of it held, but without limits: no groups (cgroups v1) can be made here")
    texts = [(class_ / path.name).read_text(encoding="utf-8") for path in NOTEBOOKS]
    notice = "the processor quota stopped this container"
    assert sum(notice in text for text in texts) >= len(NOTEBOOKS) / 2
