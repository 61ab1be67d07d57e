"""`labkit doctor`: every finding says what it means and the remedy, and none names a place."""

import dataclasses
import getpass
import json
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import checkups, cli, doctor
from labkit.cgroups import usable_cores
from labkit.checkups import WIDGETS
from labkit.findings import Finding, Status, collected, summary, text
from labkit.machines import machine
from labkit.turns import queue_lock

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30


def with_cores(number):
    return dataclasses.replace(machine(), visible_cores=4, usable_cores=number)


# Cores, memory, disk.


def test_a_quota_of_half_a_core_is_a_warning(tmp_path):
    for path, line in (
        ("proc/self/cgroup", "0::/"),
        ("proc/self/mountinfo", "31 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"),
        ("sys/fs/cgroup/cpu.max", "50000 100000"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{line}\n")
    found = checkups.cores(with_cores(usable_cores(root=tmp_path, affinity=4)))
    assert found.status is Status.WARNING
    assert found.seen == "0.5 of 4 cores may be used"
    assert "inconclusive" in found.means
    assert found.notebooks == ()


def test_one_core_lacks_the_notebook_of_parallelism_and_two_lack_nothing():
    one, two = checkups.cores(with_cores(1.0)), checkups.cores(with_cores(2.0))
    assert (one.status, one.notebooks) == (Status.WARNING, ("07",))
    assert two.status is Status.OK


def test_a_limit_of_a_gibibyte_names_the_notebooks_that_do_not_fit():
    found = checkups.memory(GIB, 8 * GIB)
    assert (found.status, found.notebooks) == (Status.PROBLEM, ("02", "08"))


def test_memory_that_others_hold_is_a_warning():
    found = checkups.memory(16 * GIB, GIB // 2)
    assert found.status is Status.WARNING
    assert "00" not in found.notebooks
    assert "01" in found.notebooks
    assert checkups.memory(16 * GIB, 8 * GIB).status is Status.OK


def test_the_memory_of_the_notebooks_is_what_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = re.search(r"together it was ([\d., and]+) GiB", readme)[1]
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", measured)]
    assert list(checkups.NOTEBOOK_GIB.values()) == numbers


@pytest.mark.parametrize(
    ("free", "status"),
    [(2 * GIB, Status.OK), (GIB // 2, Status.WARNING), (1000, Status.PROBLEM)],
)
def test_disk(free, status):
    assert checkups.disk(free).status is status


@pytest.mark.parametrize(
    ("size", "status"), [(64 * 2**20, Status.WARNING), (GIB, Status.OK), (None, Status.OK)]
)
def test_the_shared_memory_that_docker_gives_is_too_small(size, status):
    assert checkups.shared_memory(size).status is status


# Folders.


def test_a_folder_that_can_be_written_to_is_left_as_it_was(tmp_path):
    assert checkups.writable(tmp_path, "the folder", "another").status is Status.OK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["missing", "file/inside"])
def test_a_folder_that_cannot_be_written_to_is_a_problem(tmp_path, where):
    (tmp_path / "file").touch()
    found = checkups.writable(tmp_path / where, "the folder", "name another")
    assert found.status is Status.PROBLEM
    assert str(tmp_path) in found.details
    assert str(tmp_path) not in str(found.to_dict())


def test_the_folder_of_records_is_tried_where_one_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("LABKIT_RECORDS", raising=False)
    assert [f.status for f in doctor._folders(tmp_path)] == [Status.OK]
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path / "missing"))
    assert [f.status for f in doctor._folders(tmp_path)] == [Status.OK, Status.PROBLEM]


# Network.


def test_a_port_that_is_taken_is_a_warning():
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        found = checkups.port(number)
    assert found.status is Status.WARNING
    assert f"jupyter server stop {number}" in found.remedy
    assert checkups.port(number).status is Status.OK


def test_sockets_of_this_computer_answer():
    assert checkups.loopback().status is Status.OK


def test_a_name_that_is_not_this_computer_is_a_problem():
    # RFC 5737: an address for documentation, which nobody has.
    assert checkups.loopback("203.0.113.1").status is Status.PROBLEM


# Versions.


def installed(**versions):
    return versions.get


def test_the_packages_of_this_environment_are_those_of_the_constraints():
    (found,) = doctor._versions()
    assert found.status is Status.OK, found
    assert "constraints.txt" in found.seen


def test_a_missing_and_an_old_package_are_problems_in_one_finding():
    found = checkups.packages(["torch==2.13.0", "numpy>=2.3"], {}, installed(numpy="2.2.0"))
    assert found.status is Status.PROBLEM
    assert found.seen == "torch is missing; numpy 2.2.0, needed >=2.3"


def test_another_version_than_the_pin_is_a_warning_and_another_build_is_not():
    pins = {"numpy": "2.4.6", "torch": "2.13.0"}
    other = checkups.packages(["numpy>=2.3"], pins, installed(numpy="2.5.0"))
    build = checkups.packages(["torch==2.13.0"], pins, installed(torch="2.13.0+cpu"))
    assert (other.status, build.status) == (Status.WARNING, Status.OK)


def test_an_old_python_is_a_problem():
    assert checkups.python_version("3.10.4", ">=3.11").status is Status.PROBLEM
    assert checkups.python_version("3.14.0", ">=3.11").status is Status.OK


def test_a_missing_extra_names_its_notebooks_and_what_to_type():
    found = {f.check: f for f in checkups.extras(lambda name: name != "torchao")}
    assert found["quantize"].status is Status.PROBLEM
    assert found["quantize"].notebooks == ("04", "06")
    assert "'.[quantize]'" in found["quantize"].remedy
    assert found["prune"].status is Status.OK


def test_the_notebooks_of_each_extra_are_those_that_use_it():
    words = {
        "quantize": r"lab\.quantize\b",
        "prune": r"lab\.(prune|clusters)\b",
        "cluster": r"lab\.(search|clients)\b",
        "spark": "(?i)spark",
    }
    code = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code[path.name[:2]] = "\n".join(
            "".join(c["source"]) for c in cells if c["cell_type"] == "code"
        )
    for extra, word in words.items():
        using = {number for number, text in code.items() if re.search(word, text)}
        assert using == set(checkups.USED_BY[extra]) & set(code), extra


# The compiler, the font, the widgets.


def test_a_compiler_that_fails_is_a_warning_with_what_it_said(tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho no licence >&2\nexit 1\n")
    broken.chmod(0o755)
    found = checkups.compiler(str(broken))
    assert found.status is Status.WARNING
    assert found.details == "no licence"
    assert str(tmp_path) not in str(found.to_dict())


def test_no_compiler_is_a_warning():
    found = checkups.compiler(None)
    assert found.status is Status.WARNING
    assert "02" in found.notebooks


@pytest.mark.skipif(machine().compiler is None, reason="no C++ compiler here")
def test_a_compiler_that_works_needs_the_headers_of_python(tmp_path):
    assert checkups.compiler(machine().compiler).status is Status.OK
    without = checkups.compiler(machine().compiler, tmp_path)
    assert "Python.h" in without.details


def test_the_font_of_figures():
    assert checkups.fonts().status is Status.OK
    assert checkups.fonts("No Such Family").status is Status.WARNING


def test_the_extension_of_widgets_is_there_and_enabled():
    (found,) = doctor._widgets()
    assert found.status is Status.OK, found


def test_an_extension_that_somebody_turned_off_is_a_problem(tmp_path, monkeypatch):
    page = tmp_path / "labconfig" / "page_config.json"
    page.parent.mkdir()
    page.write_text(json.dumps({"disabledExtensions": {WIDGETS: True}}))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path))
    (found,) = doctor._widgets()
    assert found.status is Status.PROBLEM
    assert found.remedy == f"jupyter labextension enable {WIDGETS}"


def test_a_missing_extension_is_a_problem():
    assert checkups.widgets({}, []).status is Status.PROBLEM


# The kernel.


def kernelspec(folder, monkeypatch, arguments, **environment):
    spec = folder / "kernels" / "probe" / "kernel.json"
    spec.parent.mkdir(parents=True)
    about = {"argv": arguments, "display_name": "probe", "env": environment, "language": "python"}
    spec.write_text(json.dumps(about))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))
    return "probe"


KERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def test_the_kernel_starts_and_answers():
    assert doctor.kernel().status is Status.OK


def test_a_kernel_that_ends_at_once_is_a_problem(tmp_path, monkeypatch):
    line = [sys.executable, "-c", "raise SystemExit('no room')"]
    found = doctor.kernel(kernelspec(tmp_path, monkeypatch, line))
    assert found.seen == "the kernel does not start"
    assert "no room" in found.details


def test_a_kernel_of_another_python_is_a_problem():
    found = doctor.kernel(prefix="/another/python")
    assert (found.status, found.seen) == (Status.PROBLEM, "the kernel runs another Python")


def test_a_kernel_that_cannot_import_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('a library is missing')")
    found = doctor.kernel(kernelspec(tmp_path, monkeypatch, KERNEL, PYTHONPATH=str(tmp_path)))
    assert found.status is Status.PROBLEM
    assert found.details == "ImportError: a library is missing"


# The worker.


def test_the_worker_starts_and_tells_three_times_the_work_from_the_work():
    worker, noise = doctor.worker(budget_s=5)
    assert worker.status is Status.OK, worker
    assert noise.check == "noise"


def test_a_worker_that_cannot_tell_them_apart_is_a_warning():
    found = doctor.worker(thrice=doctor._once)[0]
    assert found.status is Status.WARNING


def test_a_variant_that_raises_in_the_worker_is_a_problem_with_its_reason():
    def refuse():
        raise OSError("no such device")

    (found,) = doctor.worker(thrice=refuse)
    assert found.status is Status.PROBLEM
    assert "no such device" in found.details
    assert "no such device" not in str(found.to_dict())


def test_a_timed_run_of_somebody_else_is_waited_for_and_then_named(monkeypatch):
    monkeypatch.setattr(doctor, "_QUEUE_S", 0.2)
    with queue_lock():
        (found,) = doctor.worker()
    assert (found.status, found.check) == (Status.WARNING, "worker")
    assert "another timed run" in found.seen


def test_noise_is_a_warning():
    assert doctor.noise(0.2).status is Status.WARNING
    assert doctor.noise(0.01).status is Status.OK


# The report.


def broken():
    raise RuntimeError("in /home/somebody")


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on():
    fine = Finding("fine", Status.OK, "yes")
    found = list(doctor.examine({"first": broken, "second": lambda: [fine]}))
    assert [f.status for f in found] == [Status.PROBLEM, Status.OK]
    assert "--only first" in found[0].remedy
    assert "/home/somebody" not in str(found[0].to_dict())


def test_everything_fits_into_80_columns():
    for found in (
        checkups.memory(GIB, GIB),
        checkups.shared_memory(1),
        checkups.port(0),
        doctor.noise(0.5),
        *checkups.extras(lambda _: False),
    ):
        lines = text(found).splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[0].startswith(f"{found.status.value:9}{found.check:10}")
        assert found.status is Status.OK or "to do: " in text(found)


def test_the_summary_counts():
    worst = [checkups.disk(0), checkups.disk(0), checkups.compiler(None)]
    assert summary(worst) == "2 problems, 1 warning."


def test_what_a_teacher_collects_names_no_place_and_nobody(monkeypatch):
    here = dataclasses.replace(machine(), compiler="/home/somebody/bin/g++")
    monkeypatch.setattr("labkit.findings.machine", lambda: here)
    report = collected([checkups.compiler("/home/somebody/bin/g++")])
    for word in ("/home", "somebody", platform.node()):
        assert word not in json.dumps(report)
    assert report["machine"]["compiler"] == "g++"


def test_the_command_reports_json_and_says_by_its_status_that_there_is_a_problem(tmp_path):
    line = [sys.executable, "-m", "labkit", "doctor", "--json", "--only", "python", "folders"]
    done = subprocess.run(
        [*line, "--folder", str(tmp_path / "missing")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert [f["status"] for f in report["findings"]] == ["ok", "problem"]
    assert str(tmp_path) not in done.stdout
    assert f"/{getpass.getuser()}/" not in done.stdout


def test_no_problem_is_0_and_a_check_that_nobody_knows_is_2(capsys):
    assert doctor.main(["--only", "python", "fonts"]) == 0
    assert "No problem, no warning." in capsys.readouterr().out
    assert cli.main(["doctor", "--only", "cores"]) == 0
    with pytest.raises(SystemExit) as refused:
        doctor.main(["--only", "everything"])
    assert refused.value.code == 2


def test_every_check_finds_something_by_itself(tmp_path):
    found = {}
    for name, check in doctor.all_checks(tmp_path).items():
        found[name] = list(doctor.examine({name: check}))
    assert all(found.values())
    assert not [f for many in found.values() for f in many if "broke" in f.seen]
