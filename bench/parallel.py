"""What a second core gains: by threads, by ranks, and for the points of a sweep."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import labkit as lab
from bench.digits import cnn, digits
from bench.report import Part, Row

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 128
_SIZE = 1024


def parallel(*, quick: bool = False) -> Part:
    """Two threads, two ranks."""
    budget_s = 3.0 if quick else 15.0
    notes = (
        "Two threads against one in the same rounds, torch told of the number before each "
        "product. Two ranks of one thread each against one process of one thread: the same "
        f"{_BATCH} images in both, the process takes them as two halves, one after the other, so "
        "that both compute the same step. Without talking: two ranks that never average their "
        "gradients; what these lack to 2x is what the cores share, and no link can bring it back."
    )
    return Part("Parallelism", (_threads_row(budget_s), _ranks_row(budget_s)), notes)


def _threads_row(budget_s: float) -> Row:
    def product(threads: int) -> Callable[[], torch.Tensor]:
        a, b = torch.randn(2, _SIZE, _SIZE)
        out = torch.empty(_SIZE, _SIZE)

        def multiply() -> torch.Tensor:
            torch.set_num_threads(threads)
            return torch.mm(a, b, out=out)

        return multiply

    found = lab.compare(
        {"1 thread": product(1), "2 threads": product(2)},
        budget_s=budget_s,
        threads=2,
        trace=False,
    )["2 threads"]
    seen = f"{found.speedup / 2:.0%} [{found.low / 2:.0%}, {found.high / 2:.0%}]"
    what = f"efficiency of 2 threads, product of {_SIZE} rows"
    return Row(what, "at least 85 %", seen, found.speedup / 2 >= 0.85, {})


def _ranks_row(budget_s: float) -> Row:
    images, labels = (part[:_BATCH].chunk(2) for part in digits("train"))
    halves = list(zip(images, labels, strict=True))

    def steps(model: nn.Module, parts: list[Any]) -> Callable[[], float]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        def step() -> float:
            optimizer.zero_grad()
            total = 0.0
            for part, answers in parts:
                loss = nn.functional.cross_entropy(model(part), answers) / len(parts)
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            optimizer.step()
            return total

        return step

    def alone() -> Callable[[], float]:
        torch.manual_seed(0)
        return steps(cnn(), halves)

    def in_rank(talk: bool) -> Callable[[], float]:  # noqa: FBT001
        torch.manual_seed(0)
        model = DistributedDataParallel(cnn()) if talk else cnn()
        return steps(model, [halves[distributed.get_rank()]])

    @functools.cache
    def pair() -> lab.parallel.Ranks:
        return lab.parallel.Ranks(2)

    def mean(step: Callable[[], list[float]]) -> float:
        return sum(step()) / 2

    found = lab.compare(
        {
            "1 process": lab.Variant(lambda step: step(), setup=alone),
            "2 ranks": lab.Variant(mean, setup=lambda: pair().prepare(in_rank, True)),  # noqa: FBT003
            "silent": lab.Variant(mean, setup=lambda: pair().prepare(in_rank, False)),  # noqa: FBT003
        },
        agree=lambda one, two: abs(one - two) < 0.05 * one,
        budget_s=2 * budget_s,
        threads=1,
        trace=False,
    )
    talking, silent = found["2 ranks"], found["silent"]
    seen = f"{talking.speedup:.2f}x {talking.interval_text}"
    peers = {"without talking": f"{silent.speedup:.2f}x {silent.interval_text}"}
    what = f"DDP, 2 ranks of one thread, CNN of 2 million weights, batch {_BATCH}"
    return Row(what, "at least 1.6x", seen, talking.speedup >= 1.6, peers)
