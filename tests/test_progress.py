"""What a learner did is kept on this computer, and never gets in the way."""

import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import labkit as lab
from labkit import progress
from labkit.progress import Answer
from labkit.results import Comparison
from labkit.sessions import Session
from labkit.sweeps import Sweep, SweepPoint
from labkit.trials import Trial

OF_THE_SUITE = os.environ["LABKIT_PROGRESS"]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    for variable in ("LABKIT_NAME", "LABKIT_RECORDS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "progress"))
    monkeypatch.setenv("JPY_SESSION_NAME", "/srv/jane/05-pruning.ipynb")
    return tmp_path / "progress"


def answer(text="a quarter", question="how many?", *, quiz="05-pruning", correct=False):
    return Answer(quiz, question, text, correct, ("how many?", "why?"))


def comparison(speedup=2.0, *, rounds=40, **about):
    times = {"float32": (1e-3,) * rounds, "int8": (1e-3 / speedup,) * rounds}
    trials = {name: Trial(name, t, tuple(range(rounds))) for name, t in times.items()}
    return Comparison(
        trials, **{"title": "static int8", "duration_s": 1.0, "parameters": {"batch": 1}, **about}
    )


@lab.experiment(steps=[1000, 3000])
def loops(steps):
    return {"short": lambda: sum(range(100)), "long": lambda: sum(range(steps))}


@lab.experiment(share=[0.5])
def endless(share):
    # Work of so different lengths that no budget of a test gives an answer.
    def work():
        time.sleep(random.uniform(0.001, 0.01))

    return {"one": work, "other": work}


def test_the_tests_write_in_a_folder_of_their_own():
    assert Path(tempfile.gettempdir()) in Path(OF_THE_SUITE).parents


def test_the_first_and_the_last_answer_to_a_question_stay(store):
    for text in ("half", "all", "none", "a quarter"):
        assert progress.keep_answer(answer(text)) == ""
    progress.keep_answer(answer("because", "why?", correct=True))
    progress.keep_answer(answer("other", quiz="06-distillation"))
    kept = progress.read()
    assert [a.answer for a in kept.answers] == ["half", "a quarter", "because", "other"]
    assert [a.correct for a in kept.answers] == [False, False, True, False]
    assert kept.answers[0].questions == ("how many?", "why?")
    assert kept.answers[0].at_utc.endswith("+00:00")
    assert len(list(store.iterdir())) == 4


def test_the_first_and_the_last_run_with_the_same_values_stay():
    for predicted in (3.0, 2.5, 2.0):
        progress.keep_run(comparison(prediction=predicted), "a sentence")
    progress.keep_run(comparison(0.5, prediction=3.0, parameters={"batch": 40}))
    runs = progress.read().runs
    assert [(r.predicted, r.label) for r in runs] == [
        (3.0, "static int8 (batch=1)"),
        (2.0, "static int8 (batch=1)"),
        (3.0, "static int8 (batch=40)"),
    ]
    first, _, slower = runs
    assert (first.notebook, first.variant, first.baseline) == ("05-pruning", "int8", "float32")
    assert math.isclose(first.speedup, 2)
    assert first.low <= first.speedup <= first.high
    assert (first.verdict, slower.verdict, first.score) == ("faster", "slower", "a sentence")


def test_the_notebook_is_named_by_whoever_shows_it(store):
    # VS Code sets a variable of the notebook, a server one of the environment.
    shown = {
        "nobody": (None, ""),
        "a server": (None, "work/05-pruning.ipynb"),
        "VS Code": ("/home/jane/06-distillation.ipynb", ""),
        "VS Code on Windows": (r"c:\lab\07-parallelism.ipynb", ""),
        "VS Code with a server": ("/lab/08-distributed.ipynb", "08-distributed-jvsc-1f.ipynb"),
    }
    code = (
        "import os\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from labkit import progress, results, trials\n"
        "shell = InteractiveShell.instance()\n"
        "times = {'a': (2.0,) * 40, 'b': (1.0,) * 40}\n"
        "kept = {n: trials.Trial(n, t, tuple(range(40))) for n, t in times.items()}\n"
        f"for title, (path, session) in {shown}.items():\n"
        "    shell.user_ns |= {'__vsc_ipynb_file__': path} if path else {}\n"
        "    os.environ['JPY_SESSION_NAME'] = session\n"
        "    assert not progress.keep_run(results.Comparison(kept, title=title))\n"
    )
    about = os.environ | {"IPYTHONDIR": str(store.parent)}
    subprocess.run([sys.executable, "-c", code], env=about, check=True)
    assert {run.experiment: run.notebook for run in progress.read().runs} == {
        "nobody": "",
        "a server": "05-pruning",
        "VS Code": "06-distillation",
        "VS Code on Windows": "07-parallelism",
        "VS Code with a server": "08-distributed",
    }


def test_the_newest_result_of_an_experiment_stays_as_it_was(monkeypatch):
    progress.keep_run(comparison(2))
    progress.keep_run(comparison(3, parameters={"batch": 40}))
    sweep = Sweep(("batch",), (SweepPoint({"batch": 8}, comparison(4)),), "static int8")
    progress.keep_run(comparison(5, title="another"))
    monkeypatch.setenv("JPY_SESSION_NAME", "06-distillation.ipynb")
    progress.keep_run(sweep)
    kept = progress.read()
    assert [(r.notebook, r.result) for r in kept.results] == [
        ("05-pruning", comparison(3, parameters={"batch": 40})),
        ("05-pruning", comparison(5, title="another")),
        ("06-distillation", sweep),
    ]
    assert len(kept.runs) == 3  # a sweep has no prediction
    assert repr(kept) == "Progress(0 answers, 3 runs, 3 results, 0 files skipped)"


def test_the_number_of_results_is_bounded(monkeypatch):
    monkeypatch.setitem(progress._MOST_FILES, "result", 3)
    for number in range(5):
        progress.keep_run(comparison(title=f"experiment {number}"))
    titles = [each.result.title for each in progress.read().results]
    assert titles == ["experiment 2", "experiment 3", "experiment 4"]


def test_of_a_result_that_is_too_large_the_numbers_stay(monkeypatch):
    progress.keep_run(comparison(2))
    monkeypatch.setattr(progress, "_MOST_RESULT_BYTES", 1000)
    assert progress.keep_run(comparison(3)) == ""
    kept = progress.read()
    assert [round(run.speedup) for run in kept.runs] == [2, 3]
    assert kept.results == ()  # an older one would be taken for the newest


def test_without_an_interval_there_is_nothing_to_keep(store):
    progress.keep_run(comparison(rounds=3))
    progress.keep_run(Comparison({}))
    progress.keep_run(Sweep(("batch",), (SweepPoint({"batch": 1}, None, "out of memory"),), "x"))
    assert not store.exists()


def test_off_keeps_and_reads_nothing(store, monkeypatch):
    progress.keep_answer(answer())
    monkeypatch.setenv("LABKIT_PROGRESS", "Off")
    assert progress.keep_answer(answer("another")) == ""
    assert progress.keep_run(comparison()) == ""
    assert progress.folder() is None
    assert progress.read() == progress.Progress()
    assert len(progress.read(store).answers) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="where data goes differs between systems")
def test_without_the_variable_it_goes_to_the_users_data(tmp_path, monkeypatch):
    monkeypatch.delenv("LABKIT_PROGRESS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert progress.folder() == tmp_path / "data" / "labkit" / "progress"
    progress.keep_answer(answer())
    assert progress.folder().stat().st_mode & 0o077 == 0  # for its owner alone


@pytest.mark.skipif(sys.platform != "linux", reason="where data goes differs between systems")
def test_without_a_home_nothing_is_kept(tmp_path, monkeypatch):
    for variable in ("LABKIT_PROGRESS", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    # As in a container that runs under a number which no user has.
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.chdir(tmp_path)
    assert progress.folder() is None
    assert progress.keep_answer(answer()) == ""
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_named_unless_somebody_gives_a_name(store, monkeypatch):
    progress.keep_answer(answer())
    progress.keep_run(comparison(machine=lab.machine()))
    for path in store.iterdir():
        text = path.read_text()
        assert "person" not in json.loads(text)
        for private in ("jane", str(Path.home()), platform.node()):
            assert f'"{private}' not in text
            assert f"/{private}" not in text
    monkeypatch.setenv("LABKIT_NAME", "Grace")
    progress.keep_answer(answer("later"))
    newest = max(store.glob("answer-*"), key=lambda path: path.stat().st_mtime_ns)
    assert json.loads(newest.read_text())["person"] == "Grace"


def test_several_kernels_at_once_lose_nothing(store):
    code = (
        "import sys; from labkit.progress import Answer, keep_answer\n"
        "for n in range(25):\n"
        "    for question in (f'{sys.argv[1]} {n}', 'of all'):\n"
        "        assert not keep_answer(Answer('q', question, f'{n}', True, (question,)))\n"
    )
    kernels = [subprocess.Popen([sys.executable, "-c", code, f"kernel {k}"]) for k in range(4)]
    assert [kernel.wait(60) for kernel in kernels] == [0] * 4
    kept = progress.read()
    assert kept.skipped == {}
    own = {a.question for a in kept.answers if a.question != "of all"}
    assert own == {f"kernel {k} {n}" for k in range(4) for n in range(25)}
    # The first of the kernel that was first, and the last of the one that was last.
    assert [a.answer for a in kept.answers if a.question == "of all"] == ["0", "24"]
    assert [path.name for path in store.iterdir() if path.suffix != ".json"] == []


def test_a_broken_file_is_named_and_left_alone(store):
    progress.keep_answer(answer())
    progress.keep_run(comparison())
    whole = {path: path.read_text() for path in store.iterdir()}
    for path, text in whole.items():
        for length in (0, 1, len(text) // 2, len(text) - 1):
            path.write_text(text[:length])
            kept = progress.read()
            assert list(kept.skipped) == [path.name]
            assert path.read_text() == text[:length]
        path.write_text(text)
    (changed,) = store.glob("answer-*")
    changed.write_text(changed.read_text().replace("a quarter", "everything"))
    (store / "run-0-1-2.json").mkdir()
    (store / "result-0-1-2.json").write_text('{"schema_version": 99, "kind": "result"}')
    (store / "notes.txt").write_text("of somebody else")
    kept = progress.read()
    assert sorted(kept.skipped) == sorted([changed.name, "run-0-1-2.json", "result-0-1-2.json"])
    assert "checksum" in kept.skipped[changed.name]
    assert (len(kept.answers), len(kept.runs), len(kept.results)) == (0, 1, 1)


def test_what_a_person_does_on_a_panel_is_kept():
    panel = loops.panel(budget_s=1, resolution=0.2)
    panel.predict(0.5)
    panel.start()
    panel.wait()
    kept = progress.read()
    (run,), (result,) = kept.runs, kept.results
    assert (run.experiment, run.predicted, run.verdict) == ("loops", 0.5, "slower")
    assert run.score.startswith("You said 0.500x; long is ")
    assert result.result.trials == panel.comparison.trials
    panel.sweep(steps=[1000])
    panel.wait()
    (result,) = progress.read().results
    assert result.result.swept == ("steps",)


def test_a_run_without_a_panel_is_not_kept(store):
    loops.run(budget_s=0.3, resolution=0.5)
    assert not store.exists()


def test_a_run_that_was_stopped_before_it_knew_anything_is_not_kept(store):
    session = Session(endless, predict=False, budget_s=20)
    session.start()
    session.stop()
    assert not store.exists()
    assert session.kept == ""


def test_a_store_that_cannot_be_written_is_one_quiet_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "file" / "progress"))
    session = Session(loops, predict=False, budget_s=0.3, resolution=0.5)
    session.start()
    session.wait()
    assert session.comparison.rounds > 0
    assert session.error == session.not_kept == ""
    assert session.kept == (
        f"Your progress is not kept in {tmp_path / 'file' / 'progress'} (Not a directory); all "
        "else works. The environment variable LABKIT_PROGRESS names another folder, or says off."
    )
    assert progress.read() == progress.Progress()
