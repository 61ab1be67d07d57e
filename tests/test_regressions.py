"""What became worse: from records, from two functions, and from two revisions in git."""

from __future__ import annotations

import math
import random
import re
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

import labkit as lab
from labkit.machines import Accelerator, machine
from labkit.regressions import compare_functions, compare_records
from labkit.revisions import compare_revisions
from labkit.traces import OperatorUse, Trace
from labkit.trials import Failure, PeakMemory, Trial

HERE = machine()


def run(int8_s=1.0, *, noise=0.0, seed=0, **changes):
    """A run whose int8 takes that long, against a float32 of 2 s; the noise is of the rounds."""
    draw = random.Random(seed)
    times = {"float32": 2.0, "int8": int8_s}
    trials = {
        name: Trial(
            name, tuple(t * math.exp(draw.gauss(0, noise)) for _ in range(60)), (*range(60),)
        )
        for name, t in times.items()
    }
    trial = {k: changes.pop(k) for k in ("metrics", "flops", "trace", "device") if k in changes}
    trials["int8"] = replace(trials["int8"], **trial)
    return lab.Comparison(trials, **{"title": "product", "machine": HERE, **changes})


def verdicts(found):
    return {c.quantity: (c.verdict, c.worse) for c in found.changes}


# Records: times.


def test_a_variant_that_lost_speed_against_its_baseline_is_worse():
    found = compare_records(run(1.0, noise=0.05), run(1.5, noise=0.05, seed=1))
    assert verdicts(found) == {"time": ("slower", True)}
    change = found.changes[0]
    assert change.low <= change.times <= change.high < 1 / 1.1
    assert re.search(r"int8: time: 1\.\d+x slower \[1\.\d+x, 1\.\d+x\]", str(found))
    assert found.exit_status == 1


def test_a_variant_that_gained_is_not_worse():
    found = compare_records(run(1.5), run(1.0))
    assert verdicts(found) == {"time": ("faster", False)}
    assert found.exit_status == 0


def test_the_baseline_is_not_judged_by_the_clock():
    """Twice as slow a machine, or moment, changes no ratio."""
    slow = run(1.0)
    slow = replace(
        slow,
        trials={
            n: replace(t, times_s=tuple(2 * s for s in t.times_s)) for n, t in slow.trials.items()
        },
    )
    found = compare_records(run(1.0), slow)
    assert verdicts(found) == {"time": ("same", False)}
    assert "times of different runs are not compared" in str(found)


def test_one_run_a_side_counts_only_what_is_clearly_more_than_runs_differ_by():
    assert compare_records(run(1.0), run(1.08)).exit_status == 0
    assert compare_records([run(1.0), run(1.0)], [run(1.08), run(1.08)]).exit_status == 1
    assert "keep two runs or more" in str(compare_records(run(1.0), run(1.08)))


def test_a_side_is_as_wide_as_its_runs_are_apart():
    """Two of three runs of HEAD are slower, and the third is as it was: nobody can tell."""
    before = [run(1.0), run(1.01), run(0.99)]
    found = compare_records(before, [run(1.3), run(1.3), run(1.0)])
    assert verdicts(found) == {"time": ("inconclusive", False)}
    found = compare_records(before, [run(1.3), run(1.3), run(1.2)])
    assert verdicts(found) == {"time": ("slower", True)}


def test_too_few_rounds_tell_nothing():
    short = run(3.0)
    short = replace(
        short,
        trials={
            n: replace(t, times_s=t.times_s[:4], rounds=t.rounds[:4])
            for n, t in short.trials.items()
        },
    )
    assert verdicts(compare_records(run(1.0), short)) == {"time": ("inconclusive", False)}


def test_unchanged_code_is_hardly_ever_called_worse():
    """Runs differ by 2 % for reasons of their own, which their intervals know nothing of."""
    draw = random.Random(3)
    alarms = 0
    for i in range(200):
        times = [math.exp(draw.gauss(0, 0.02)) for _ in range(4)]
        runs = [run(t, noise=0.01, seed=4 * i + j) for j, t in enumerate(times)]
        alarms += compare_records(runs[:2], runs[2:]).exit_status
    assert alarms <= 2


# Records: what does not vary.


def test_bytes_flops_and_operators_count_to_the_last_one():
    def traced(calls):
        use = OperatorUse("aten.add", "float32", "cpu", "8", calls, 1e-6, 64)
        return Trace((use,))

    before = run(metrics={"size_bytes": 1000, "accuracy": 0.9}, flops=100.0, trace=traced(3))
    now = run(metrics={"size_bytes": 1001, "accuracy": 0.8}, flops=101.0, trace=traced(4))
    assert verdicts(compare_records(before, now)) == {
        "time": ("same", False),
        "FLOPs": ("more", True),
        "bytes moved": ("same", False),
        "operators": ("more", True),
        "size_bytes": ("more", True),
    }
    assert "operators: more (3 before, 4 now: +1 aten.add)" in str(compare_records(before, now))
    assert compare_records(now, before).exit_status == 0


def test_peak_memory_counts_beyond_what_it_varies_by():
    def peak(n):
        return run(memory={"int8": PeakMemory(n, 0, "cpu", "test")})

    assert compare_records(peak(10 * 2**20), peak(11 * 2**20)).exit_status == 0
    found = compare_records(peak(10 * 2**20), peak(12 * 2**20))
    assert "peak memory: more (10 MiB before, 12 MiB now)" in str(found)
    assert found.exit_status == 1


def test_a_variant_that_fails_now_is_worse():
    failure = Failure("int8", "setup", "raised", "no such layer")
    found = compare_records(run(), run(failures={"int8": failure}))
    assert verdicts(found) == {"failure": ("failed", True)}
    assert "no such layer" in str(found)
    found = compare_records(run(failures={"int8": failure}), run(failures={"int8": failure}))
    assert found.exit_status == 0


# Records: what must not be compared.


def test_different_machines_are_refused_with_the_way_out():
    other = replace(HERE, processor="Another One", visible_cores=64)
    with pytest.raises(ValueError, match="never compared as one; measure both on one") as refused:
        compare_records(run(), run(3.0, machine=other))
    assert other.fingerprint in str(refused.value)
    assert HERE.fingerprint in str(refused.value)


def test_the_accelerator_counts_where_the_work_runs_on_it():
    one, two = (replace(HERE, accelerators=(Accelerator("cuda", n),)) for n in ("A", "B"))
    with pytest.raises(ValueError, match="never compared as one"):
        compare_records(run(device="cuda", machine=one), run(device="cuda", machine=two))
    assert compare_records(run(machine=one), run(machine=two)).exit_status == 0


def test_a_machine_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="an unknown machine"):
        compare_records(run(machine=None), run(machine=None))


def test_what_only_one_side_has_is_said():
    found = compare_records([run(), run(title="sum")], [run(), run(parameters={"size": 3})])
    assert "not compared: sum: int8: only in BASE" in str(found)
    assert "not compared: product (size=3): int8: only in HEAD" in str(found)


def test_other_versions_are_said():
    newer = replace(HERE, versions={**HERE.versions, "torch": "99.0"})
    assert "note: torch was " in str(compare_records(run(), run(machine=newer)))


def test_a_broken_file_of_a_folder_is_said(tmp_path):
    for side in ("base", "head"):
        (tmp_path / side).mkdir()
        run().save(tmp_path / side)
    (tmp_path / "head" / "half.json").write_text('{"kind"')
    found = compare_records(tmp_path / "base", tmp_path / "head")
    assert "not compared: half.json of HEAD: cut off" in str(found)
    assert list(found.to_frame()["verdict"]) == ["same"]
    assert found._repr_html_().count("<tr>") == 2


# Two functions.


def busy(steps):
    def call():
        for _ in range(steps):
            pass

    return call


@pytest.mark.alone
def test_a_function_that_became_slower_is_worse():
    found = compare_functions(busy(3000), busy(9000), budget_s=2)
    assert [c.quantity for c in found.worse] == ["time"]
    change = found.worse[0]
    assert 2 < 1 / change.times < 4


@pytest.mark.alone
def test_the_same_function_is_not_worse():
    found = compare_functions(busy(3000), busy(3000), budget_s=2, resolution=0.1)
    assert found.exit_status == 0


def test_a_function_that_holds_more_memory_is_worse():
    found = compare_functions(lambda: bytearray(2**20), lambda: bytearray(8 * 2**20), budget_s=0.5)
    assert "peak memory" in [c.quantity for c in found.worse]


def test_with_a_base_that_fails_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="nothing to compare with: base raised"):
        compare_functions(lambda: 1 / 0, busy(10), budget_s=0.5)


# Two revisions.

LOOPS = """
    import labkit as lab
    from project import core

    def work():
        # Found when it runs, long after both revisions were imported.
        from project.late import factor
        core.spin(1000 * factor())

    @lab.experiment(size=[1000, 3000])
    def loops(size):
        return {"plain": lambda: core.spin(size), "twice": lambda: core.spin(2 * size)}
"""
CORE = """
    from project import __name__ as own

    def spin(steps):
        for _ in range(STEPS):
            pass
"""


def git(folder, *args):
    name = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *name, "-C", str(folder), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def commit(folder, **files):
    write(folder, {name.replace("__", "/") + ".py": text for name, text in files.items()})
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "x")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A project with a benchmark, whose first commit is tagged "v1"."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    write(folder, {"project/__init__.py": "", "data.txt": "old"})
    commit(
        folder,
        bench__loops=LOOPS,
        project__core=CORE.replace("STEPS", "steps"),
        project__late="def factor():\n    return 1\n",
    )
    git(folder, "tag", "v1")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.alone
def test_a_revision_that_became_slower_is_worse(repository):
    commit(repository, project__core=CORE.replace("STEPS", "3 * steps"))
    found = compare_revisions(
        "v1", "HEAD", ["bench/loops.py:work"], budget_s=2, memory=False, threads=1
    )
    assert [c.quantity for c in found.worse] == ["time"]
    assert 2.5 < 1 / found.worse[0].times < 3.5
    assert found.worse[0].subject == "bench/loops.py:work"


@pytest.mark.alone
def test_what_a_function_imports_while_it_runs_is_of_its_own_revision(repository):
    commit(repository, project__late="def factor():\n    return 3\n")
    found = compare_revisions(
        "v1", "HEAD", ["bench/loops.py:work"], budget_s=2, memory=False, threads=1
    )
    assert 2.5 < 1 / found.worse[0].times < 3.5


@pytest.mark.alone
def test_a_revision_with_the_same_code_is_not_worse(repository):
    commit(repository)
    found = compare_revisions(
        "v1", "HEAD", ["bench/loops.py:work"], budget_s=3, resolution=0.1, threads=1
    )
    assert found.exit_status == 0
    # Operators are looked at where the worker has torch already, and there are none.
    assert {c.quantity for c in found.changes} - {"operators"} == {"time", "peak memory"}


def test_only_what_git_has_is_measured_and_nothing_is_left_behind(repository):
    commit(repository)
    write(repository, {"project/core.py": "raise RuntimeError('not committed')\n"})
    found = compare_revisions(
        "v1", "HEAD", ["bench/loops.py:work"], budget_s=0.5, resolution=0.5, memory=False, threads=1
    )
    assert found.exit_status == 0
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert "not committed" in (repository / "project/core.py").read_text()


@pytest.mark.alone
def test_each_variant_of_an_experiment_is_compared_with_itself(repository):
    commit(repository, project__core=CORE.replace("STEPS", "3 * steps"))
    found = compare_revisions(
        "v1", "HEAD", ["bench/loops.py:loops"], budget_s=1, memory=False, threads=1
    )
    assert [c.subject for c in found.worse] == [
        "bench/loops.py:loops: plain",
        "bench/loops.py:loops: twice",
    ]


def test_one_operator_more_is_found_whatever_the_clock_says(repository):
    torch = """
        import torch

        x = torch.ones(4)

        def add():
            return x + 1 MORE
    """
    commit(repository, bench__ops=torch.replace("MORE", ""))
    commit(repository, bench__ops=torch.replace("MORE", "+ 1"))
    found = compare_revisions(
        "HEAD~1", "HEAD", ["bench/ops.py:add"], budget_s=0.5, resolution=1, memory=False, threads=1
    )
    assert "operators: more (1 before, 2 now: +1 aten.add" in str(found)
    assert found.exit_status == 1


def test_a_revision_that_raises_is_worse(repository):
    commit(repository, project__core="def spin(steps):\n    raise RuntimeError('a bad shape')\n")
    found = compare_revisions(
        "v1", "HEAD", ["bench/loops.py:work"], budget_s=0.5, memory=False, threads=1
    )
    assert [c.verdict for c in found.worse] == ["failed"]
    assert "a bad shape" in str(found)


def test_what_the_older_revision_does_not_have_is_said_and_the_rest_is_compared(repository):
    new = "from project import core\n\ndef g():\n    core.spin(1000)\n"
    commit(repository, bench__new=new)
    targets = ["bench/new.py:g", "bench/loops.py:work"]
    found = compare_revisions(
        "v1", "HEAD", targets, budget_s=0.5, resolution=0.5, memory=False, threads=1
    )
    assert found.not_compared == ("bench/new.py:g of v1: there is no bench/new.py",)
    assert [c.subject for c in found.changes if c.quantity == "time"] == ["bench/loops.py:work"]


def test_a_resolution_that_this_moment_cannot_give_compares_nothing(repository):
    commit(repository)
    target = ["bench/loops.py:work"]
    with pytest.raises(ValueError, match=r"nothing to compare: .*:work: resolution=1e-06 is out"):
        compare_revisions("v1", "HEAD", target, budget_s=0.5, resolution=1e-6, threads=1)


@pytest.mark.parametrize(
    ("base", "target", "reason"),
    [
        ("v0", "bench/loops.py:work", "no revision 'v0'.*fetch-depth: 0"),
        ("v1", "bench/loops.py", "write path/to/file.py:name"),
        ("v1", "bench/none.py:work", "of v1: there is no bench/none.py"),
        ("v1", "bench/loops.py:play", "has no 'play'; it has .*loops"),
        ("v1", "bench/loops.py:core", "cannot be called"),
    ],
)
def test_bad_input_is_refused(repository, base, target, reason):
    commit(repository)
    with pytest.raises(ValueError, match=reason):
        compare_revisions(base, "HEAD", [target], budget_s=0.5)
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_folder_outside_of_git_is_said(tmp_path):
    with pytest.raises(ValueError, match="not a git repository"):
        compare_revisions("a", "b", ["x.py:f"], repository=tmp_path)


def test_a_package_that_would_come_from_the_working_tree_is_refused(repository, monkeypatch):
    """As where it is installed in editable mode, from a folder that nobody named."""
    write(repository, {"lib/inner/__init__.py": "", "bench/late.py": "import inner\nf = min\n"})
    git(repository, "add", ".")
    commit(repository)
    monkeypatch.syspath_prepend(str(repository / "lib"))
    target = ["bench/late.py:f"]
    with pytest.raises(ValueError, match=r"No module named 'inner'.*--path lib"):
        compare_revisions("HEAD", "HEAD", target, budget_s=0.5)


def test_an_installed_copy_of_the_project_is_refused(repository, tmp_path, monkeypatch):
    write(tmp_path, {"site-packages/inner/__init__.py": ""})
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    late = "import inner\ndef f():\n    return inner.__name__\n"
    write(repository, {"lib/inner/__init__.py": "", "bench/late.py": late})
    git(repository, "add", ".")
    commit(repository)
    target = ["bench/late.py:f"]
    with pytest.raises(ValueError, match=r"imported from outside the revision.*--path lib"):
        compare_revisions("HEAD", "HEAD", target, budget_s=0.5)
    found = compare_revisions(
        "HEAD", "HEAD", target, paths=["lib"], budget_s=0.5, resolution=0.5, memory=False, threads=1
    )
    assert found.exit_status == 0


def test_a_project_that_the_process_needs_itself_is_refused(repository):
    write(repository, {"labkit/__init__.py": ""})
    git(repository, "add", ".")
    commit(repository)
    with pytest.raises(ValueError, match=r"'labkit'.*compare-records"):
        compare_revisions("HEAD", "HEAD", ["bench/loops.py:work"], budget_s=0.5)


def test_files_are_read_below_the_revision(repository):
    write(repository, {"data.txt": "new, and a good deal longer"})
    text = """
        def f():
            assert open("data.txt").read() == "new, and a good deal longer"
    """
    write(repository, {"bench/read.py": text})
    git(repository, "add", ".")
    commit(repository)
    write(repository, {"data.txt": "not committed"})
    found = compare_revisions(
        "HEAD", "HEAD", ["bench/read.py:f"], budget_s=0.5, resolution=0.5, memory=False, threads=1
    )
    assert found.exit_status == 0
    assert Path.cwd() == repository
