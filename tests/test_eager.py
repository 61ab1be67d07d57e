"""Looking at operators and counting FLOPs, without torch's compiler and beside it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from labkit import flops  # noqa: E402


def outcome(script):
    """What a script prints in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_looking_at_the_operators_does_not_import_the_compiler():
    script = """
        import sys
        import torch
        from labkit import prune
        from labkit.tracing import trace_call

        layer, x = torch.nn.Linear(4, 3), torch.ones(2, 4)
        trace = trace_call(lambda: layer(x).sum().backward())
        print(trace.flops, prune.count(layer, (x,)).flops, "torch._dynamo" in sys.modules)
    """
    assert outcome(script) == [str(2 * 2 * 4 * 3 * 2), str(2 * 2 * 4 * 3), "False"]


def test_a_model_that_was_compiled_later_is_looked_at_all_the_same():
    script = """
        import torch
        from labkit.tracing import trace_call

        x = torch.ones(2, 4)
        before = trace_call(lambda: torch.nn.functional.relu(x))
        compiled = torch.compile(torch.nn.Linear(4, 3), backend="aot_eager")
        compiled(x)
        after = trace_call(lambda: compiled(x))
        print(*(use.name for use in before.operators), after.flops)
    """
    assert outcome(script) == ["aten.relu", str(2 * 2 * 4 * 3)]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_flops_are_those_that_torch_counts(mode):
    layers = nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 8), nn.Unflatten(1, (2, 4))
    model = nn.Sequential(*layers, nn.MultiheadAttention(4, 2))
    images = torch.ones(2, 1, 8, 8)

    def answer():
        rows = model[:-1](images)
        return model[-1](rows, rows, rows)

    with mode():
        with FlopCounterMode(display=False) as counter:
            answer()
        assert flops.count(answer) == counter.get_total_flops() > 0
