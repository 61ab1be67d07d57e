"""What a second core gains: by threads, by ranks, and for the points of a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import labkit as lab
from bench.digits import cnn, digits
from bench.report import Part, Row

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 64
_SIZE = 1024


def parallel(*, quick: bool = False) -> Part:
    """Two threads, two ranks."""
    budget_s = 3.0 if quick else 15.0
    notes = (
        "Two threads against one in the same rounds, torch told of the number before each "
        "product. Two ranks of one thread each against one process of one thread: the same "
        f"{_BATCH} images in both, the process takes them as two halves, one after the other, so "
        "that both compute the same step."
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

    def in_rank() -> Callable[[], float]:
        torch.manual_seed(0)
        return steps(DistributedDataParallel(cnn()), [halves[distributed.get_rank()]])

    def together() -> Any:
        return lab.parallel.Ranks(2).prepare(in_rank)

    found = lab.compare(
        {
            "1 process": lab.Variant(lambda step: step(), setup=alone),
            "2 ranks": lab.Variant(lambda step: sum(step()) / 2, setup=together),
        },
        agree=lambda one, two: abs(one - two) < 0.05 * one,
        budget_s=budget_s,
        threads=1,
        trace=False,
    )["2 ranks"]
    seen = f"{found.speedup:.2f}x {found.interval_text}"
    what = f"DDP, 2 ranks of one thread, CNN of 2 million weights, batch {_BATCH}"
    return Row(what, "at least 1.6x", seen, found.speedup >= 1.6, {})
