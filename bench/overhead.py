"""What the harness itself costs, and how fast a worker starts."""

from __future__ import annotations

import math
import subprocess
import sys
import time
import timeit
from statistics import median

import labkit as lab
from bench.report import Part, Row
from bench.work import loop
from labkit.recorder import Settings
from labkit.units import format_time
from labkit.variants import as_variants
from labkit.worker import Run

_IMPORT = """
import sys, time
began = time.perf_counter()
import labkit
took = time.perf_counter() - began
print(took, [m for m in ("torch", "matplotlib", "ipywidgets") if m in sys.modules])
"""


def overhead(*, quick: bool = False) -> Part:
    """The fastest sample of a short function against timeit's."""
    turns = 5 if quick else 60
    short = loop(40)
    best = {"labkit": math.inf, "timeit": math.inf}
    timer, own_s = timeit.Timer(short), 0.0
    for _ in range(turns):
        trial = lab.measure(short, budget_s=0.2)
        own_s = trial.overhead_s
        best["labkit"] = min(best["labkit"], trial.fastest_s)
        best["timeit"] = min(best["timeit"], min(timer.repeat(20, 10_000)) / 10_000)
    ratio = best["labkit"] / best["timeit"]
    row = Row(
        "fastest sample of a short function, over timeit's best",
        "within 2 %",
        f"{ratio:.3f}x of {format_time(best['timeit'])}",
        abs(ratio - 1) <= 0.02,
    )
    own = Row("the loop around one evaluation, included in the times", "", format_time(own_s), None)
    return Part("Overhead", (row, own))


def first_event_s() -> float:
    """From the start of a run to the first word of its worker, a process of its own."""
    run = Run(as_variants({"nothing": lambda: None}), Settings(budget_s=0.05))
    began = time.perf_counter()
    run.start()
    while run.stage in {"", "starting the worker"} or run.stage.startswith("waiting"):
        run.poll(0.001)
    took_s = time.perf_counter() - began
    run.stop()
    return took_s


def start(*, quick: bool = False) -> Part:
    """How fast a fresh process is there, and the import."""
    turns = 3 if quick else 20
    first_event_s()
    worker_s = median(first_event_s() for _ in range(turns))
    imports = [
        subprocess.run(
            [sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True
        ).stdout.split(maxsplit=1)
        for _ in range(turns)
    ]
    import_s = median(float(took) for took, _ in imports)
    loaded = imports[0][1].strip()
    rows = (
        Row(
            "a fresh isolated process with torch in it, once warm",
            "under 0.15 s",
            f"median {worker_s:.3f} s",
            worker_s < 0.15,
        ),
        Row("import labkit", "under 0.1 s", f"median {import_s:.3f} s", import_s < 0.1),
        Row(
            "of torch, matplotlib and ipywidgets it loads",
            "none",
            "none" if loaded == "[]" else loaded,
            loaded == "[]",
        ),
    )
    return Part("Start", rows)
