"""Measure one machine of the example class in data/class: two experiments, a record of each.

    LABKIT_NAME=Ada python tools/measure_class.py data/class 4 2

The numbers are the person's guesses, one for each experiment; "-" leaves one out.
data/class/README.md says how each machine was limited.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch

import labkit as lab


@lab.experiment(size=[256, 512], threads=[1])
def int8_product(size: int, threads: int) -> dict[str, Callable[[], Any]]:  # noqa: ARG001
    """A product of two square matrices: float32 against int8 with sums in int32."""
    a, b = torch.randn(2, size, size)
    a8, b8 = torch.randint(-127, 128, (2, size, size), dtype=torch.int8)
    return {"float32": lambda: a @ b, "int8": lambda: torch._int_mm(a8, b8)}  # noqa: SLF001


@lab.experiment(size=[256, 512], threads=[1])
def matmul(size: int, threads: int) -> dict[str, Callable[[], Any]]:  # noqa: ARG001
    """A product of two square matrices: float32 against bfloat16."""
    a, b = torch.randn(2, size, size)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    return {"float32": lambda: a @ b, "bfloat16": lambda: half_a @ half_b}


def main() -> None:
    """Measure and keep, with the guesses of the command line."""
    folder, *guesses = sys.argv[1:]
    for experiment, guess in zip((int8_product, matmul), guesses, strict=True):
        if guess == "-":
            continue
        settings = {"budget_s": 2, "resolution": 0.1, "trace": False}
        found = experiment.run(**settings, prediction=float(guess))
        print(found, found.save(folder), sep="\n")


if __name__ == "__main__":
    main()
