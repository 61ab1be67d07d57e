"""The command `labkit`: what it prints, and the exit status that CI goes by."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import labkit as lab
from labkit.cli import _parser, main
from labkit.machines import machine
from labkit.trials import Trial


def run(float32_s, int8_s):
    times = {"float32": (float32_s,) * 40, "int8": (int8_s,) * 40}
    trials = {name: Trial(name, t, tuple(range(40))) for name, t in times.items()}
    return lab.Comparison(trials, title="product", machine=machine())


@pytest.fixture
def folders(tmp_path):
    for name in ("base", "head"):
        (tmp_path / name).mkdir()
    return tmp_path / "base", tmp_path / "head"


def test_nothing_worse_is_0(folders, capsys):
    base, head = folders
    run(2.0, 1.0).save(base)
    run(2.0, 1.01).save(head)
    assert main(["compare-records", str(base), str(head)]) == 0
    assert "nothing of 1 quantities became worse" in capsys.readouterr().out


def test_something_worse_is_1_and_a_sentence(folders, capsys):
    base, head = folders
    run(2.0, 1.0).save(base)
    run(2.0, 1.5).save(head)
    assert main(["compare-records", str(base), str(head)]) == 1
    out = capsys.readouterr().out
    assert "WORSE product: int8: time: 1.50x slower [1.50x, 1.50x]" in out
    assert "1 of 1 quantities became worse" in out


def test_a_resolution_may_be_given(folders):
    base, head = folders
    run(2.0, 1.0).save(base)
    run(2.0, 1.5).save(head)
    assert main(["compare-records", str(base), str(head), "--resolution", "0.6"]) == 0


def test_bad_input_is_2_and_a_sentence(folders, capsys):
    base, head = folders
    assert main(["compare-records", str(base), str(head)]) == 2
    assert "nothing to compare: there are no records" in capsys.readouterr().err
    assert main(["compare-records", str(base), "nowhere.json"]) == 2
    assert "nowhere.json" in capsys.readouterr().err
    (base / "x.json").write_text("{")
    assert main(["compare-records", str(base / "x.json"), str(head)]) == 2
    assert "cut off" in capsys.readouterr().err
    run(2.0, 1.0).save(base)
    run(2.0, 1.0).save(head)
    assert main(["compare-records", str(base), str(head), "--resolution", "-1"]) == 2
    assert "give a share above 0" in capsys.readouterr().err


def test_a_word_that_it_does_not_know_is_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare"])
    assert ended.value.code == 2
    assert "compare-records" in capsys.readouterr().err


def test_the_command_that_pip_installs_is_this_one():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    module, _, name = tomllib.loads(text)["project"]["scripts"]["labkit"].partition(":")
    assert getattr(importlib.import_module(module), name) is main


def test_revisions_are_compared_from_the_command_line(tmp_path, monkeypatch, capsys):
    def git(*args):
        name = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *name, *args], check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    for steps in (1000, 3000):
        (tmp_path / "bench.py").write_text(f"def work():\n    for _ in range({steps}): pass\n")
        git("add", ".")
        git("commit", "--quiet", "-m", "x")
    command = ["compare-revisions", "--budget", "1", "--threads", "1", "--no-memory"]
    assert main([*command, "HEAD~1", "HEAD", "--", "bench.py:work"]) == 1
    assert re.search(r"WORSE bench.py:work: time: [23]\.\d+x slower", capsys.readouterr().out)
    assert main([*command, "HEAD", "HEAD", "bench.py:work", "--resolution", "0.1"]) == 0
    assert main([*command, "HEAD~9", "HEAD", "bench.py:work"]) == 2
    assert "git knows no revision 'HEAD~9'" in capsys.readouterr().err


def test_it_runs_as_a_module(folders):
    base, head = folders
    run(2.0, 1.0).save(base)
    run(2.0, 1.5).save(head)
    command = [sys.executable, "-m", "labkit", "compare-records", str(base), str(head)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "slower" in done.stdout


def test_the_commands_of_the_documentation_are_ones_that_it_takes():
    text = (Path(__file__).parents[1] / "docs/regression.md").read_text()
    blocks = re.findall(r"```(yaml|console|crontab)\n(.*?)```", text, flags=re.DOTALL)
    assert [kind for kind, _ in blocks] == ["console", "yaml", "crontab", "console"]
    commands = [line for _, block in blocks for line in re.findall(r"labkit (compare.*)", block)]
    assert len(commands) == 4
    for command in commands:
        # A shell would put a revision where "$(...)" stands, and end at what it knows itself.
        words = shlex.split(re.sub(r'"?\$\([^)]*\)"?', "REVISION", command).split(">")[0])
        assert _parser().parse_args(words).command == words[0]
    jobs = yaml.safe_load(dict(blocks)["yaml"])["jobs"]
    assert jobs["compare"]["steps"][0]["with"]["fetch-depth"] == 0
