"""A sweep on Dask beside the same sweep in one process."""

from __future__ import annotations

import logging
import random
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from scipy.stats import binom

import labkit as lab
from bench.report import Part, Row, of

if TYPE_CHECKING:
    from labkit.sweeps import Sweep

_WORKERS = 2


@lab.experiment(steps=[20_000], threads=[1])
def _loops(steps: int, threads: int) -> dict[str, Any]:  # noqa: ARG001  (it sets the worker's)
    """Identical work of such different lengths that a second gives no answer."""

    def work() -> None:
        for _ in range(random.randrange(steps, 3 * steps)):
            pass

    return {"one": work, "other": work}


def sweeps(*, quick: bool = False) -> Part:
    """Points of a second each, one after the other and two at once."""
    from distributed import Client, LocalCluster

    number = 4 if quick else 16
    values = [20_000 + 100 * i for i in range(number)]
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=_WORKERS,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        # Each process starts its server of workers once.
        _sweep(values[:1])
        _sweep(values[:4], client=client, at_once=_WORKERS)
        alone, alone_s = _sweep(values)
        together, together_s = _sweep(values, client=client, at_once=_WORKERS)
        queued, queued_s = _sweep(values[:4], client=client)
    rounds = [median(c.rounds for c in s.comparisons) for s in (together, alone)]
    # Of true intervals of 95 %, fewer than this hold in one run of a hundred.
    least = int(binom.ppf(0.01, number, 0.95))
    held = {"side by side": _held(together), "one after the other": _held(alone)}
    rows = (
        Row(
            f"{number} points of 1 s on {_WORKERS} workers, over one process",
            "at least 1.7x",
            f"{alone_s / together_s:.2f}x ({alone_s:.1f} s, {together_s:.1f} s)",
            alone_s / together_s >= 1.7,
        ),
        Row("rounds of a point side by side, over alone", "", f"{rounds[0] / rounds[1]:.2f}", None),
        *(
            Row(
                f"identical work {how}: its interval holds 1",
                f"at least {of(least, number)}",
                of(count, number),
                count >= least,
            )
            for how, count in held.items()
        ),
        Row(
            "4 points without at_once: seconds a point",
            "at least 1: one after the other",
            f"{queued_s / len(queued):.2f}",
            queued_s >= len(queued),
        ),
    )
    notes = (
        f"A LocalCluster of {_WORKERS} processes; one thread a point; at_once={_WORKERS}. Its "
        "start is not counted, nor is that of the server that each process forks its "
        "measurements from."
    )
    return Part("A sweep on Dask", rows, notes)


def _held(sweep: Sweep) -> int:
    return sum(c["other"].low <= 1 <= c["other"].high for c in sweep.comparisons)


def _sweep(values: list[int], **how: Any) -> tuple[Sweep, float]:
    began = time.perf_counter()
    found = _loops.sweep(steps=values, budget_s=1, resolution=0.05, **how)
    took_s = time.perf_counter() - began
    assert not [point.error for point in found if point.error], str(found)
    return found, took_s
