"""Results of other machines: read with their labels, never mixed, never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import labkit as lab
from labkit.machines import Accelerator
from labkit.results import Comparison
from labkit.sweeps import Sweep, SweepPoint
from labkit.trials import Trial
from tools import record

TOOLS = Path(__file__).parent.parent / "tools"


def comparison(gpu="NVIDIA H200"):
    here = replace(lab.machine(accelerators=False), accelerators=(Accelerator("cuda", gpu, 2**37),))
    trials = {n: Trial(n, (s,) * 60, tuple(range(60))) for n, s in (("cpu", 2.0), ("cuda", 1.0))}
    return Comparison(trials, machine=here, started_utc="2026-11-21T10:00:00+00:00")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nvidia-h200").mkdir()
    comparison().save(tmp_path / "nvidia-h200" / "02-gpu product.json")
    point = SweepPoint({"size": 1}, comparison())
    Sweep(("size",), (point,)).save(tmp_path / "nvidia-h200" / "02-gpu addition.json")
    return tmp_path


def test_recordings_are_found_by_name_with_machine_date_and_versions(folder):
    found = lab.recorded(folder, prefix="02-gpu ")
    assert sorted(found) == ["addition", "product"]
    (one,) = found["product"]
    assert one.place == "NVIDIA H200"
    assert one.label.startswith("NVIDIA H200, recorded 2026-11-21 (")
    assert "torch" in one.label
    assert one.result["cuda"].verdict == "faster"
    assert isinstance(found["addition"][0].result, Sweep)


def test_text_and_table_name_the_machine_of_every_result(folder):
    found = lab.recorded(folder)
    assert all("NVIDIA H200" in line for line in str(found).splitlines())
    html = found._repr_html_()
    assert "Recorded, not measured here" in html
    assert 'class="labkit-result"' in html
    assert repr(found) == "Recordings"


def test_a_sweep_of_several_machines_is_no_recording_of_the_first(folder):
    points = [SweepPoint({"size": n}, comparison(), machine_id=m) for n, m in ((1, "a"), (2, "b"))]
    Sweep(("size",), tuple(points)).save(folder / "nvidia-h200" / "02-gpu cluster.json")
    found = lab.recorded(folder)
    assert "02-gpu cluster" not in found
    assert "2 machines measured it" in found.skipped["nvidia-h200/02-gpu cluster.json"]


def test_without_recordings_it_says_so_and_how_to_make_one(tmp_path):
    none = lab.recorded(tmp_path / "nowhere")
    assert len(none) == 0
    assert "make record" in str(none)
    assert "make record" in none._repr_html_()
    with pytest.raises(KeyError, match="no recording of 'product'"):
        none["product"]


def test_a_broken_file_is_named_and_the_others_are_there(folder):
    (folder / "nvidia-h200" / "broken.json").write_text('{"kind": "comparison"')
    found = lab.recorded(folder)
    assert len(found) == 2
    assert list(found.skipped) == ["nvidia-h200/broken.json"]
    assert "broken.json" in str(found)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_a_pipe_is_not_waited_for_and_a_changed_number_is_found(folder):
    os.mkfifo(folder / "nvidia-h200" / "pipe.json")
    changed = folder / "nvidia-h200" / "02-gpu product.json"
    changed.write_text(changed.read_text().replace("2.0", "9.0"))
    found = lab.recorded(folder)
    assert list(found) == ["02-gpu addition"]
    assert "not a plain file" in found.skipped["nvidia-h200/pipe.json"]
    assert "checksum" in found.skipped["nvidia-h200/02-gpu product.json"]


def test_a_result_that_does_not_name_its_machine_is_skipped(tmp_path):
    (tmp_path / "a").mkdir()
    replace(comparison(), machine=None).save(tmp_path / "a" / "x.json")
    assert "does not say on which machine" in str(lab.recorded(tmp_path))


# The tool that writes them.

EXPERIMENT = """\
import labkit as lab

@lab.experiment(size=[10, 20])
def sums(size):
    return {"sum": lambda: sum(range(size)), "loop": lambda: [n for n in range(size)]}
"""
RECORDINGS = 'recordings = {"sums": lambda: sums.run(budget_s=0.5, resolution=0.5)}'


def run_record(monkeypatch, notebook, folder):
    """Run the tool in this process: another one would have to import all again."""
    monkeypatch.chdir(TOOLS)  # it goes to another folder, and comes back with this
    monkeypatch.setattr(sys, "argv", ["record.py", str(notebook), "--folder", str(folder)])
    record.main()


def test_record_runs_the_code_of_the_notebook_and_keeps_what_is_there(
    tmp_path, monkeypatch, capsys
):
    tagged = {"tags": ["record"]}
    cells = [
        new_code_cell(EXPERIMENT, metadata=tagged),
        new_code_cell("raise RuntimeError('not tagged, not run')"),
        new_code_cell(RECORDINGS, metadata=tagged),
    ]
    notebook = tmp_path / "09-sums.ipynb"
    nbformat.write(new_notebook(cells=cells), notebook)
    command = [sys.executable, TOOLS / "record.py", notebook, "--folder", tmp_path / "recorded"]
    subprocess.run(command, capture_output=True, check=True)
    (path,) = (tmp_path / "recorded").glob("*/09-sums sums.json")
    first = path.read_text()
    run_record(monkeypatch, notebook, tmp_path / "recorded")
    assert "is there already" in capsys.readouterr().out
    assert path.read_text() == first
    assert list(lab.recorded(tmp_path / "recorded", prefix="09-sums ")) == ["sums"]


def test_a_notebook_without_tagged_cells_has_nothing_to_record(tmp_path, monkeypatch):
    notebook = tmp_path / "empty.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), notebook)
    run_record(monkeypatch, notebook, tmp_path / "recorded")
    assert not (tmp_path / "recorded").exists()
