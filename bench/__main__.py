"""The command line: which parts, how many repetitions, and where the figures go."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import labkit as lab
from bench.coverage import coverage
from bench.memory import memory
from bench.overhead import overhead, start
from bench.verdicts import power, same

if TYPE_CHECKING:
    from bench.report import Part

PARTS = {
    "same": same,
    "power": power,
    "coverage": coverage,
    "overhead": overhead,
    "memory": memory,
    "start": start,
}
RESULTS = Path(__file__).parent / "results.md"
PACKAGES = ("torch", "pyperf", "pytest-benchmark", "memory-profiler")


def header(*, quick: bool) -> str:
    """What the figures depend on."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    how = " in quick mode: few repetitions, so the figures say little" if quick else ""
    return (
        "# Figures of the last run\n\n"
        f"Written by `python -m bench --write`{how}. Every figure was measured, those of the peers "
        "in the same run as labkit's. Ratios and counts carry over to other machines better than "
        "seconds do.\n\n"
        f"- machine: {lab.machine().line()}\n"
        f"- versions: labkit {version('labkit')}, {versions}\n"
        f"- date: {datetime.now(UTC).date().isoformat()}\n"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that were asked for; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args(arguments)
    for name in given.parts:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}; there are {', '.join(PARTS)}")
    if given.write and given.parts:
        parser.error("--write needs all parts: give none")
    absent = [name for name in PACKAGES if _version(name) == "not installed"]
    if absent:
        parser.error(f"{', '.join(absent)}: not installed; pip install -e '.[bench]' brings them")
    parts: list[Part] = []
    for name in given.parts or PARTS:
        began = time.perf_counter()
        parts.append(PARTS[name](quick=given.quick))
        print(f"{parts[-1].to_markdown()}\n({time.perf_counter() - began:.0f} s)\n", flush=True)
    if given.write:
        text = "\n".join([header(quick=given.quick), *(part.to_markdown() for part in parts)])
        RESULTS.write_text(text, encoding="utf-8")
    missed = [f"{part.title}: {row.what}" for part in parts for row in part.missed]
    for line in missed:
        print(f"MISSED {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
