"""What `labkit doctor` looks at, each a small function: what was seen, what it means, the remedy.

Nothing here starts a kernel or a worker: `labkit.doctor` does.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import socket
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.files import write_new
from labkit.findings import Finding, Status
from labkit.optional import EXTRAS, is_there
from labkit.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from labkit.machines import Machine

# Anonymous memory of a notebook's kernel and its workers together, at most (README).
NOTEBOOK_GIB = {
    "00": 0.4,
    "01": 0.6,
    "02": 1.1,
    "03": 0.7,
    "04": 1.0,
    "05": 0.6,
    "06": 0.7,
    "07": 0.8,
    "08": 1.5,
}
# The notebooks that need an extra of labkit.
USED_BY = {
    "quantize": ("04", "06"),
    "prune": ("05", "06"),
    "cluster": ("07",),
    "spark": ("07",),
}
WIDGETS = "@jupyter-widgets/jupyterlab-manager"
# Docker's, if nobody asks for more.
_DOCKER_SHM_BYTES = 64 * 2**20
# A margin, not a measurement: a saved notebook takes half a MiB, what torch compiles some tens.
_DISK_BYTES = 2**30
_INSTALL = "make lab, or pip install -c constraints.txt"


def python_version(version: str, needed: str) -> Finding:
    """Whether Python is one that labkit supports.

    Args:
        version: such as "3.11.7".
        needed: of pyproject.toml, such as ">=3.11".

    >>> python_version("3.11.7", ">=3.11").status.value
    'ok'
    """
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(needed).contains(version, prereleases=True):
        return Finding("python", Status.OK, f"Python {version}; {needed} is needed")
    return Finding(
        "python",
        Status.PROBLEM,
        f"Python {version}; {needed} is needed",
        "labkit and the libraries that it is made for do not run",
        f"install a Python {needed}, then name it: make PYTHON=python3.12 lab",
    )


def packages(
    needed: Sequence[str], pins: Mapping[str, str], installed: Callable[[str], str | None]
) -> Finding:
    """Whether what labkit needs is installed, in the versions that the notebooks were made with.

    Args:
        needed: requirements, such as "numpy>=2.3".
        pins: exact versions by name, of constraints.txt; empty where that is not there.
        installed: from a name to its version; None: not installed.

    >>> packages(["numpy>=2.3"], {}, lambda name: "2.2.0").seen
    'numpy 2.2.0, needed >=2.3'
    """
    from packaging.requirements import Requirement
    from packaging.version import Version

    wrong, other, count = [], [], 0
    for line in needed:
        requirement = Requirement(line)
        version = installed(requirement.name)
        pin = pins.get(requirement.name.lower().replace("_", "-"))
        count += 1
        if version is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version}, needed {requirement.specifier}")
        elif pin and Version(version).public != Version(pin).public:
            other.append(f"{requirement.name} {version}, made with {pin}")
    if wrong:
        means = "labkit or a notebook stops with an error where it needs them"
        return Finding(
            "packages", Status.PROBLEM, "; ".join(wrong), means, f"{_INSTALL} --upgrade -e ."
        )
    if other:
        means = "the notebooks run; speeds and some outputs differ from the saved ones"
        return Finding("packages", Status.WARNING, "; ".join(other), means, f"{_INSTALL} -e .")
    beside = "at the versions of constraints.txt" if pins else "in versions that labkit accepts"
    return Finding("packages", Status.OK, f"{count} packages, {beside}")


def extras(there: Callable[[str], bool] = is_there, spark: str | None = None) -> list[Finding]:
    """Whether the packages are there that only some notebooks need, a finding for each extra.

    Args:
        there: from a module's name to whether it is installed.
        spark: what Spark lacks beside its package; see ``Machine.missing("spark")``.

    >>> [found.status.value for found in extras(lambda name: name != "pyspark")]
    ['ok', 'ok', 'ok', 'ok']
    """
    findings = []
    for extra, notebooks in USED_BY.items():
        names = [package for package, home in EXTRAS.items() if home == extra]
        missing = [name for name in names if not there(name)]
        if extra == "spark":
            # Nothing installs it unasked, and the notebook says NOT HERE.
            seen = "not installed; optional" if missing else "installed"
            seen = seen if missing or not spark else "installed, without Java; optional"
            findings.append(Finding(extra, Status.OK, seen, notebooks=notebooks))
        elif missing:
            finding = Finding(
                extra,
                Status.PROBLEM,
                f"{', '.join(missing)}: not installed",
                "the cells that need it stop with an error that names the package",
                f"{_INSTALL} -e '.[{extra}]'",
                notebooks,
            )
            findings.append(finding)
        else:
            findings.append(Finding(extra, Status.OK, ", ".join(names), notebooks=notebooks))
    return findings


def cores(machine: Machine) -> Finding:
    """How many cores may really be used, by affinity and quotas."""
    usable, seen = (
        machine.usable_cores,
        (f"{machine.usable_cores:.3g} of {machine.visible_cores} cores may be used"),
    )
    if usable >= 2 - 1e-9:
        return Finding("cores", Status.OK, seen)
    if usable >= 1 - 1e-9:
        means = "what needs two cores says NOT HERE; the rest runs"
        remedy = "use a computer or a server with two cores for this notebook"
        return Finding("cores", Status.WARNING, seen, means, remedy, ("07",))
    means = (
        "the quota stops every run now and then: runs take longer, and more of them end "
        "inconclusive. labkit sets threads=1 by itself"
    )
    remedy = "keep the quick settings, or ask for a quota of at least one core"
    return Finding("cores", Status.WARNING, seen, means, remedy)


def memory(usable_bytes: int, available_bytes: int) -> Finding:
    """Whether the notebooks fit.

    Args:
        usable_bytes: in the box, or what the container allows.
        available_bytes: that nobody uses at the moment.

    >>> memory(16 * 2**30, 2**30 // 2).status.value
    'warning'
    """
    available_bytes = min(available_bytes, usable_bytes)
    seen = (
        f"{format_bytes(usable_bytes)} may be used, {format_bytes(available_bytes)} are free now; "
        f"a notebook takes up to {max(NOTEBOOK_GIB.values()):g} GiB"
    )
    never = tuple(n for n, gib in NOTEBOOK_GIB.items() if gib * 2**30 > usable_bytes)
    now = tuple(n for n, gib in NOTEBOOK_GIB.items() if gib * 2**30 > available_bytes)
    if never:
        means = "a run may be killed for memory; it becomes a row that says so"
        remedy = "ask for a larger limit, or leave these notebooks out"
        return Finding("memory", Status.PROBLEM, seen, means, remedy, never)
    if now:
        means = "the computer will swap, and timings will be of the disk"
        remedy = "close other programs and other kernels (Kernel > Shut Down All Kernels)"
        return Finding("memory", Status.WARNING, seen, means, remedy, now)
    return Finding("memory", Status.OK, seen)


def disk(free_bytes: int) -> Finding:
    """Whether notebooks, records and what torch compiles can be saved."""
    seen = f"{format_bytes(free_bytes)} free for notebooks and temporary files"
    if free_bytes >= _DISK_BYTES:
        return Finding("disk", Status.OK, seen)
    full = free_bytes < _DISK_BYTES / 10
    means = "saving a notebook or a record fails when the disk is full"
    status = Status.PROBLEM if full else Status.WARNING
    return Finding("disk", status, seen, means, f"free {format_bytes(_DISK_BYTES)}")


def shared_memory(total_bytes: int | None) -> Finding:
    """Whether the workers of a DataLoader can pass their batches on.

    Args:
        total_bytes: size of /dev/shm; None: this system has none.
    """
    if total_bytes is None:
        return Finding("shm", Status.OK, "no /dev/shm on this system, and none is needed")
    seen = f"/dev/shm holds {format_bytes(total_bytes)}"  # noqa: S108  (a text)
    if total_bytes > _DOCKER_SHM_BYTES:
        return Finding("shm", Status.OK, seen)
    means = (
        "workers of a DataLoader pass batches through it and die with a bus error when it is full"
    )
    remedy = "docker run --shm-size=1g ...; on Kubernetes mount a volume there (docs/hub.md)"
    return Finding("shm", Status.WARNING, seen, means, remedy, ("07",))


def writable(folder: Path, what: str, remedy: str) -> Finding:
    """Whether a file can be written to a folder, as records are.

    Args:
        folder: where.
        what: its name in the report; the path is left to the details.
        remedy: what to do if not.
    """
    try:
        write_new(folder / f".doctor-{secrets.token_hex(4)}.tmp", "written").unlink()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "no reason given"
        means = f"{what} cannot be written to: what is done there is lost"
        details = f"{folder}: {reason}"
        return Finding(
            "folders", Status.PROBLEM, f"{what}: {reason}", means, remedy, details=details
        )
    return Finding("folders", Status.OK, f"{what} can be written to", details=str(folder))


def loopback(name: str = "localhost") -> Finding:
    """Whether processes of this computer can talk to each other by sockets.

    Args:
        name: of this computer for itself.
    """
    try:
        with (
            socket.create_server((name, 0)) as server,
            socket.create_connection(server.getsockname()[:2], timeout=5) as ours,
        ):
            server.settimeout(5)
            theirs, _ = server.accept()
            with theirs:
                ours.sendall(b"hello")
                heard = theirs.recv(5)
    except OSError as error:
        heard, reason = b"", str(error)
    else:
        reason = "the answer was another one"
    if heard == b"hello":
        return Finding("network", Status.OK, f"{name} answers")
    means = "JupyterLab, its kernels, Dask and torch.distributed cannot be reached"
    remedy = "let a firewall or VPN pass 127.0.0.1, and name localhost in the hosts file"
    return Finding("network", Status.PROBLEM, f"no answer on {name}", means, remedy, details=reason)


def port(number: int = 8888) -> Finding:
    """Whether JupyterLab's usual port is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # as JupyterLab does; elsewhere this would take a port from others
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            means = "JupyterLab takes another one and prints its address; is an old one running?"
            remedy = f"jupyter server list, jupyter server stop {number}"
            return Finding("port", Status.WARNING, f"port {number} is taken", means, remedy)
    return Finding("port", Status.OK, f"port {number} is free")


def compiler(command: str | None, headers: Path | None = None) -> Finding:
    """Whether torch.compile finds a C++ compiler that works, with the headers of Python.

    Args:
        command: of the compiler; None: none is found.
        headers: folder of Python.h; None: of this Python.
    """
    name = Path(command).name if command else "none, or no Python.h"
    where = headers or Path(sysconfig.get_path("include"))
    reason = ""
    if command and name.removesuffix(".exe") != "cl":  # Microsoft's takes other options
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text("#include <Python.h>\n#include <vector>\nstd::vector<int> probe;\n")
            line = [command, "-c", source.name, "-o", "probe.o", f"-I{where}"]
            try:
                done = subprocess.run(
                    line, cwd=folder, capture_output=True, text=True, timeout=60, check=False
                )
                reason = "" if done.returncode == 0 else done.stderr.strip() or "it failed"
            except (OSError, subprocess.TimeoutExpired) as error:
                reason = str(error)
    if command and not reason:
        return Finding("compiler", Status.OK, f"{name} compiles")
    seen = f"C++ compiler: {name}{', which fails' if reason else ''}"
    means = "torch.compile cannot make code for the processor; those cells say NOT HERE or fail"
    remedies = {
        "Linux": "sudo apt-get install g++ python3-dev (or what your system calls them)",
        "Darwin": "xcode-select --install",
    }
    remedy = remedies.get(platform.system(), "install the Build Tools for Visual Studio with C++")
    return Finding("compiler", Status.WARNING, seen, means, remedy, ("02", "04"), reason)


def widgets(extensions: Mapping[str, Any], disabled: Mapping[str, bool] | Sequence[str]) -> Finding:
    """Whether JupyterLab can show the panels.

    Args:
        extensions: of JupyterLab, by name, each with its "version".
        disabled: those that the page's configuration turns off.
    """
    off = [n for n in disabled if not hasattr(disabled, "get") or disabled.get(n)]
    means = "panels are shown as text, without controls"
    if WIDGETS not in extensions:
        remedy = "pip install --force-reinstall -c constraints.txt jupyterlab_widgets"
        seen = "JupyterLab's extension for widgets is missing"
        return Finding("widgets", Status.PROBLEM, seen, means, remedy)
    if any(name.partition(":")[0] == WIDGETS for name in off):
        remedy = f"jupyter labextension enable {WIDGETS}"
        seen = "JupyterLab's extension for widgets is turned off"
        return Finding("widgets", Status.PROBLEM, seen, means, remedy)
    seen = f"JupyterLab's extension for widgets, {extensions[WIDGETS].get('version', '?')}"
    return Finding("widgets", Status.OK, f"{seen}, is there and enabled")


def fonts(family: str = "DejaVu Sans") -> Finding:
    """Whether the figures' font is there; matplotlib brings its own."""
    from matplotlib import font_manager

    try:
        font_manager.findfont(family, fallback_to_default=False)
    except ValueError:
        means = "signs may be missing in figures, and their texts may overlap"
        remedy = "pip install --force-reinstall -c constraints.txt matplotlib"
        return Finding("fonts", Status.WARNING, f"no {family} for figures", means, remedy)
    return Finding("fonts", Status.OK, f"{family} for figures")


def free_bytes(*folders: Path) -> int:
    """Free space where there is least.

    >>> free_bytes(Path(".")) > 0
    True
    """
    return min(shutil.disk_usage(folder).free for folder in folders)
