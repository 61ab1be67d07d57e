"""A function at another place: the same work, the same state, other code objects."""

from __future__ import annotations

from functools import partial

import pytest

from labkit.recorder import Settings
from labkit.relocation import relocated
from labkit.variants import as_variants
from labkit.worker import Run

pytestmark = pytest.mark.alone

STATE: list[int] = []


def remember(number=1, *, more=0):
    STATE.append(number + more)
    return STATE


def nested(numbers):
    return sum(n * n for n in numbers)


def codes(code):
    yield code
    for const in code.co_consts:
        if isinstance(const, type(code)):
            yield from codes(const)


def test_inner_code_moves_too():
    copy = relocated(nested)
    old, new = list(codes(nested.__code__)), list(codes(copy.__code__))
    assert len(old) == len(new) >= 2
    assert all(a is not b and a == b for a, b in zip(old, new, strict=True))
    assert copy([1, 2, 3]) == 14


def test_globals_defaults_and_closures_are_shared():
    STATE.clear()
    assert relocated(remember)() is STATE
    assert relocated(remember)(2, more=3) == [1, 5]
    count = 0

    def step():
        nonlocal count
        count += 1

    relocated(step)()
    step()
    assert count == 2


def test_methods_and_partials_move_with_what_they_are_bound_to():
    class Counter:
        def __init__(self):
            self.count = 0

        def step(self, by=1):
            self.count += by

    counter = Counter()
    relocated(counter.step)()
    relocated(partial(counter.step, by=10))()
    assert counter.count == 11


@pytest.mark.parametrize("call", [len, sorted, "".join, str])
def test_what_has_no_python_code_is_given_back(call):
    assert relocated(call) is call


def test_a_compiled_function_stays_compiled():
    import torch

    def add(x):
        return x + 1

    compiled = torch.compile(add, backend="eager")
    compiled(torch.ones(3))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert torch.equal(relocated(compiled)(torch.ones(3)), torch.full((3,), 2.0))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_two_functions_of_the_same_source_are_not_told_apart():
    # Without moving, one process of five finds them 1 to 5 % apart.
    numbers = [float(n) for n in range(1000)]

    def work():
        return sum(n * n for n in numbers)

    def same_work():
        return sum(n * n for n in numbers)

    # Two at once, a core for each: the two functions of a process meet the same neighbour.
    settings = Settings(budget_s=20, threads=1, at_once=2)
    variants = as_variants({"work": work, "same work": same_work})
    runs = [Run(variants, settings) for _ in range(20)]
    for pair in zip(runs[::2], runs[1::2], strict=True):
        for run in pair:
            run.start()
        while not all(run.done for run in pair):
            for run in pair:
                run.poll(0.02)
    assert [run.error for run in runs] == [None] * 20
    verdicts = [run.comparison["same work"].verdict.value for run in runs]
    assert sum(verdict in ("faster", "slower") for verdict in verdicts) <= 1
