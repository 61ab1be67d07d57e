"""Looking at operators, counting FLOPs and training, without torch's compiler and beside it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from labkit import flops, training  # noqa: E402


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


def test_training_does_not_import_the_compiler():
    script = """
        import sys
        import torch
        from labkit import training

        layer = torch.nn.Linear(4, 3)
        for kind in (training.SGD, training.Adam):
            optimizer = kind(layer.parameters(), lr=0.1)
            scaler = torch.amp.GradScaler("cpu")
            scaler.scale(layer(torch.ones(2, 4)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            kind(layer.parameters(), lr=0.1).load_state_dict(optimizer.state_dict())
        training.fit(layer, torch.eye(4)[:3], torch.arange(3), steps=2)
        print("torch._dynamo" in sys.modules)
    """
    assert outcome(script) == ["False"]


def weights_after(kind, train=lambda step: step(), **settings):
    """What some steps of training make of a small network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = kind(model.parameters(), **settings)

    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.eye(4)), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimizer.step()

    for _ in range(5):
        train(step)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


KINDS = [
    (training.SGD, torch.optim.SGD, {"lr": 0.1}),
    (training.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    (training.Adam, torch.optim.Adam, {"lr": 0.01}),
    (training.Adam, torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "foreach": True}),
]


@pytest.mark.parametrize(("ours", "theirs", "settings"), KINDS)
def test_optimizers_take_the_steps_of_torch(ours, theirs, settings):
    assert torch.equal(weights_after(ours, **settings), weights_after(theirs, **settings))


@pytest.mark.parametrize(("ours", "theirs", "settings"), KINDS)
def test_a_training_step_that_is_compiled_is_the_same(ours, theirs, settings):
    def compiled(step):
        torch.compile(step, backend="eager")()

    found = weights_after(ours, compiled, **settings)
    assert torch.allclose(found, weights_after(theirs, **settings), atol=1e-6)


def test_a_step_may_work_out_the_loss_itself():
    number = nn.Parameter(torch.tensor(4.0))
    optimizer = training.SGD([number], lr=0.25)

    def loss():
        optimizer.zero_grad()
        value = (number - 1) ** 2
        value.backward()
        return value.detach()

    assert [float(optimizer.step(loss)) for _ in range(3)] == [9.0, 2.25, 0.5625]


def test_profilers_see_the_step_as_that_of_any_optimizer():
    with torch.profiler.profile() as seen:
        weights_after(training.SGD, lr=0.1)
    assert [
        each.count for each in seen.key_averages() if each.key == "Optimizer.step#SGD.step"
    ] == [5]


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
