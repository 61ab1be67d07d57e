"""`labkit doctor`: is this computer ready for the workshop, and if not, what has to be done?

Every finding says what was seen, what it means for which notebook, and the remedy.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import checkups
from labkit.findings import Finding, Status, collected, summary, text
from labkit.machines import machine
from labkit.units import format_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from labkit.worker import Run

_ROOT = Path(__file__).parent.parent
# As the caveat of a comparison has it.
_NOISY = 0.05
_QUEUE_S = 3.0
_DEADLINE_S = 60.0


def kernel(name: str = "python3", *, prefix: str = sys.prefix, deadline_s: float = 60) -> Finding:
    """Start a kernel of Jupyter and ask it something.

    Args:
        name: of its kernelspec.
        prefix: of the Python that it should run.
        deadline_s: for its start, and for its answer.
    """
    from jupyter_client.manager import start_new_kernel

    means, remedy = "no cell of any notebook runs", "python -m ipykernel install --sys-prefix"
    began = time.monotonic()
    heard: list[str] = []
    content: dict[str, str] = {}
    with tempfile.TemporaryFile("w+") as said:
        try:
            manager, client = start_new_kernel(
                startup_timeout=deadline_s, kernel_name=name, stdout=said, stderr=said
            )
        except Exception as error:
            said.seek(0)
            last = (said.read().strip().splitlines() or [""])[-1]
            seen = "the kernel does not start"
            details = f"{type(error).__name__}: {error} {last}"
            return Finding("kernel", Status.PROBLEM, seen, means, remedy, details=details)
        try:
            # After importing what every notebook imports.
            reply = client.execute_interactive(
                "import sys, ipywidgets, labkit, torch; print(sys.prefix)",
                timeout=deadline_s,
                output_hook=lambda message: heard.append(message["content"].get("text", "")),
                allow_stdin=False,
            )
            content = reply["content"]
        except TimeoutError:
            heard.clear()
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    answer = "".join(heard).strip()
    if answer == prefix:
        took = f"{time.monotonic() - began:.1f} s"
        return Finding("kernel", Status.OK, f"starts, imports torch and answers in {took}")
    if "ename" in content:
        seen, means = "the kernel cannot import torch, ipywidgets or labkit", "no notebook runs"
        answer = f"{content['ename']}: {content['evalue']}"
    elif answer:
        seen, means = "the kernel runs another Python", "the packages of this one are not there"
    else:
        seen = "the kernel starts, and does not answer"
    return Finding("kernel", Status.PROBLEM, seen, means, remedy, details=answer)


def _once() -> object:
    return sum(range(1_000))


def _thrice() -> object:
    return sum(range(3_000))


def worker(
    *,
    budget_s: float = 1.0,
    once: Callable[[], object] = _once,
    thrice: Callable[[], object] = _thrice,
    deadline_s: float = _DEADLINE_S,
) -> list[Finding]:
    """Start the worker, and compare a piece of work with three times as much of it.

    Args:
        budget_s: seconds of measuring.
        once: the work.
        thrice: three times as much.
        deadline_s: for everything, the wait for the machine (a few seconds at most) apart.

    Returns:
        A finding on the worker and, if it measured, one on the noise floor of this moment.
    """
    from labkit.recorder import Settings
    from labkit.variants import as_variants
    from labkit.worker import Run

    variants = as_variants({"once": once, "three times": thrice})
    settings = Settings(budget_s=budget_s, resolution=0.1, threads=1, trace=False)
    run = Run(variants, settings)
    try:
        return _measured(run, deadline_s)
    except Exception as error:
        return [_no_worker(f"{type(error).__name__}: {error}")]
    finally:
        run.stop()


def _measured(run: Run, deadline_s: float) -> list[Finding]:
    from labkit.statistics import Verdict
    from labkit.worker import Status as RunStatus

    run.start()
    began = time.monotonic()
    while run.status is RunStatus.QUEUED:
        run.poll(0.1)
        if time.monotonic() - began > _QUEUE_S:
            means = "timed runs of one person queue for the machine, so that none disturbs another"
            remedy = "wait for it, or stop it, then: labkit doctor --only worker"
            seen = "another timed run is using this machine"
            return [Finding("worker", Status.WARNING, seen, means, remedy)]
    began = time.monotonic()
    while not run.done and time.monotonic() - began < deadline_s:
        run.poll(0.1)
    comparison = run.comparison
    if run.error is not None:
        raise run.error
    if comparison.failures:
        failure = next(iter(comparison.failures.values()))
        return [_no_worker(f"{failure.reason}: {failure.message}")]
    if not comparison.rounds:
        return [_no_worker(f"nothing was measured in {deadline_s:g} s")]
    ratio = comparison["three times"]
    seen = f"starts and measures; three times the work takes {1 / ratio.speedup:.2g} times as long"
    found = [Finding("worker", Status.OK, seen)]
    if ratio.verdict is not Verdict.SLOWER:
        means = "three times the work could not be told from the work: results will be inconclusive"
        remedy = "close other programs, plug the computer in, then: labkit doctor --only worker"
        found = [Finding("worker", Status.WARNING, f"verdict: {ratio.verdict}", means, remedy)]
    if comparison.noise_floor is not None:
        found.append(noise(comparison.noise_floor.spread))
    return found


def _no_worker(details: str) -> Finding:
    means = "nothing can be measured: every comparison needs the worker"
    remedy = "look at the details; lab.compare(..., isolate=False) measures without it"
    seen = "the worker did not measure"
    return Finding("worker", Status.PROBLEM, seen, means, remedy, details=details)


def noise(spread: float) -> Finding:
    """By what share identical code differs at this moment.

    >>> noise(0.2).status.value
    'warning'
    """
    seen = f"identical code differs by {format_share(spread)} from round to round"
    if spread <= _NOISY:
        return Finding("noise", Status.OK, seen)
    means = "small differences stay inconclusive, or take longer to see"
    remedy = "close other programs, plug the computer in, turn its power saving off"
    return Finding("noise", Status.WARNING, seen, means, remedy)


def _versions() -> list[Finding]:
    from importlib import metadata

    def installed(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    lines = metadata.requires("labkit") or []
    needed = [line for line in lines if "extra ==" not in line]
    pinned = _ROOT / "constraints.txt"
    text = pinned.read_text(encoding="utf-8") if pinned.exists() else ""
    pairs = re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)
    pins = {name.lower().replace("_", "-"): version for name, version in pairs}
    return [checkups.packages(needed, pins, installed)]


def _python() -> list[Finding]:
    from importlib import metadata

    needed = metadata.metadata("labkit")["Requires-Python"]
    return [checkups.python_version(machine().python, needed)]


def _memory() -> list[Finding]:
    import psutil

    available = psutil.virtual_memory().available
    return [checkups.memory(machine().usable_memory_bytes, available)]


def _shared_memory() -> list[Finding]:
    place = Path("/dev/shm")  # noqa: S108  (asked for its size, never written to)
    total = shutil.disk_usage(place).total if place.is_dir() else None
    return [checkups.shared_memory(total)]


def _folders(folder: Path) -> list[Finding]:
    found = [
        checkups.writable(folder, "the folder of the notebooks", "copy it to a folder of your own")
    ]
    records = os.environ.get("LABKIT_RECORDS", "").strip()
    if records:
        remedy = "ask whoever made it for the right to write, or name another: LABKIT_RECORDS=..."
        found.append(checkups.writable(Path(records), "the folder of LABKIT_RECORDS", remedy))
    return found


def _widgets() -> list[Finding]:
    from jupyter_core.paths import jupyter_path
    from jupyterlab_server.config import get_federated_extensions, get_page_config

    places = jupyter_path("labextensions")
    disabled = get_page_config(places).get("disabledExtensions", [])
    return [checkups.widgets(get_federated_extensions(places), disabled)]


def all_checks(folder: Path) -> dict[str, Callable[[], list[Finding]]]:
    """What can be looked at, by name, in the order of the report.

    Args:
        folder: of the notebooks.
    """
    temporary = Path(tempfile.gettempdir())
    return {
        "python": _python,
        "packages": _versions,
        "extras": lambda: checkups.extras(spark=machine().missing("spark")),
        "cores": lambda: [checkups.cores(machine())],
        "memory": _memory,
        "disk": lambda: [checkups.disk(checkups.free_bytes(folder, temporary))],
        "shm": _shared_memory,
        "folders": lambda: _folders(folder),
        "network": lambda: [checkups.loopback(), checkups.port()],
        "compiler": lambda: [checkups.compiler(machine().compiler)],
        "fonts": lambda: [checkups.fonts()],
        "widgets": _widgets,
        "kernel": lambda: [kernel()],
        "worker": worker,
    }


def examine(checks: dict[str, Callable[[], list[Finding]]]) -> Iterator[Finding]:
    """Run checks one after the other; one that breaks is a finding, too."""
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:
            seen = f"this check broke ({type(error).__name__})"
            means = "nobody knows whether this part works"
            remedy = f"repair what is found above, then: labkit doctor --only {name}"
            yield Finding(name, Status.PROBLEM, seen, means, remedy, details=str(error))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--json", action="store_true", help="as JSON, without paths and names, for a teacher"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="CHECK",
        choices=tuple(all_checks(Path())),
        help="some of: %(choices)s",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="of the notebooks (left out: notebooks, if there is one, else this folder)",
    )


def run(given: argparse.Namespace) -> int:
    """Examine and report; returns the exit status, 1 if there is a problem."""
    folder = given.folder or (Path("notebooks") if Path("notebooks").is_dir() else Path())
    checks = all_checks(folder)
    wanted = {name: check for name, check in checks.items() if name in (given.only or checks)}
    if given.json:
        # Whatever a library prints on the way must not end up inside the JSON.
        with contextlib.redirect_stdout(sys.stderr):
            findings = list(examine(wanted))
        print(json.dumps(collected(findings), indent=1))
    else:
        findings = []
        for finding in examine(wanted):
            findings.append(finding)
            print(text(finding), flush=True)
        print(f"\n{summary(findings)}")
    return int(any(finding.status is Status.PROBLEM for finding in findings))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0: no problem, 1: a problem, 2: bad input.

    Args:
        arguments: without the name of the program; None: those of this process.
    """
    parser = argparse.ArgumentParser(prog="labkit doctor", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
