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
from bench.limits import limits
from bench.memory import memory
from bench.overhead import overhead, start
from bench.parallel import parallel
from bench.pruning import pruning
from bench.quantization import quantization
from bench.sweeps import sweeps
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
    "limits": limits,
    "quantization": quantization,
    "pruning": pruning,
    "sweeps": sweeps,
    "parallel": parallel,
}
RESULTS = Path(__file__).parent / "results.md"
PACKAGES = (
    *("torch", "pyperf", "pytest-benchmark", "memory-profiler"),
    *("torchao", "onnxruntime", "torch-pruning", "distributed"),
)


HEADER = """\
# Figures of the last run

Written by `python -m bench --write`, part by part. Every figure was measured, those of the peers in
the same run as labkit's. Ratios and counts carry over to other machines better than seconds do.
"""


def origin() -> str:
    """What the figures of a part depend on."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("labkit", *PACKAGES))
    date = datetime.now(UTC).date().isoformat()
    return f"Measured on {date}: {lab.machine().line()}; {versions}."


def replace_part(written: str, part: Part) -> str:
    """The text of the results with a part put in, in the place of an earlier run of it."""
    sections = {}
    for section in written.split("\n## ")[1:]:
        sections[section.partition("\n")[0]] = f"## {section.rstrip()}\n"
    sections[part.title] = f"{part.to_markdown()}\n{origin()}\n"
    return "\n".join([HEADER, *sections.values()])


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
    if given.write and given.quick:
        parser.error("--write needs the full repetitions: leave --quick out")
    absent = [name for name in PACKAGES if _version(name) == "not installed"]
    if absent:
        parser.error(f"{', '.join(absent)}: not installed; pip install -e '.[bench]' brings them")
    parts: list[Part] = []
    for name in given.parts or PARTS:
        began = time.perf_counter()
        parts.append(PARTS[name](quick=given.quick))
        print(f"{parts[-1].to_markdown()}\n({time.perf_counter() - began:.0f} s)\n", flush=True)
        if given.write:
            # Part by part: what took half an hour is not lost when a later part fails.
            written = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
            RESULTS.write_text(replace_part(written, parts[-1]), encoding="utf-8")
    missed = [f"{part.title}: {row.what}" for part in parts for row in part.missed]
    for line in missed:
        print(f"MISSED {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
