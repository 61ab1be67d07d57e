"""Training a model for some steps: seeded, with a bar, and to be stopped."""

from __future__ import annotations

import inspect
import math
import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    Loss = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How far a classifier's answers are from the labels."""
    return nn.functional.cross_entropy(model(inputs), labels)


def fit(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    steps: int,
    rate: float = 1e-3,
    batch: int = 32,
    seed: int = 0,
    loss: Loss = cross_entropy,
    title: str = "training",
) -> list[float]:
    """Train a model in place with Adam, on batches drawn at random.

    Interrupting it (the stop button of the notebook) ends the training and keeps what was
    learned; the number of losses says how far it came.

    Args:
        model: what is trained; it is in evaluation mode afterwards.
        inputs: of shape (rows, ...).
        labels: of shape (rows,).
        steps: batches to learn from.
        rate: the learning rate at the start; it falls to zero along a cosine.
        batch: rows in a batch.
        seed: for the draw of the batches; the global state of torch is left alone.
        loss: of (model, inputs of the batch, labels of the batch).
        title: beside the bar.

    Returns:
        The loss of each step that was taken.

    Raises:
        ValueError: no steps, or inputs and labels of different lengths.

    >>> x, y = torch.eye(4), torch.arange(4)
    >>> model = nn.Linear(4, 4)
    >>> losses = fit(model, x, y, steps=50, rate=0.1, batch=4)
    >>> losses[-1] < losses[0], model.training
    (True, False)
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: give at least 1")
    if len(inputs) != len(labels):
        raise ValueError(f"{len(inputs)} inputs and {len(labels)} labels: give as many of each")
    draw = torch.Generator().manual_seed(seed)
    optimizer = Adam(model.parameters())
    losses: list[float] = []
    model.train()
    try:
        for step in _bar(range(steps), title):
            rows = torch.randint(len(inputs), (batch,), generator=draw)
            optimizer.zero_grad()
            value = loss(model, inputs[rows], labels[rows])
            torch.autograd.backward(value)
            falling = rate * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.param_groups[0]["lr"] = falling
            optimizer.step()
            losses.append(float(value.detach()))
    except KeyboardInterrupt:
        print(f"{title}: stopped after {len(losses)} of {steps} steps; what was learned is kept")
    finally:
        model.eval()
        # Gradients are as large as the model, and nobody reads them any more.
        optimizer.zero_grad()
        del optimizer
        return_free_memory(collect=False)
    return losses


class _WithoutCompiler(torch.optim.Optimizer):
    """The methods of torch's optimizers, without what keeps torch's compiler away from them.

    Each of torch's own imports that compiler at its first call, only to be left alone by it: a
    second or two, and some 80 MB in every process that trains. What is compiled later may have
    these in it all the same: the compiler then looks into them.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move every parameter that has a gradient.

        Args:
            closure: works out the loss anew and gives it back, where the caller wants that.
        """
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return inspect.unwrap(super().step)(self, closure)


class SGD(_WithoutCompiler, torch.optim.SGD):
    """`torch.optim.SGD` as it is, but torch's compiler is not imported.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html

    >>> number = nn.Parameter(torch.tensor(4.0))
    >>> optimizer = SGD([number], lr=0.25)
    >>> torch.autograd.backward((number - 1) ** 2)
    >>> optimizer.step()
    >>> number.item()
    2.5
    """


class Adam(_WithoutCompiler, torch.optim.Adam):
    """`torch.optim.Adam` as it is, but torch's compiler is not imported.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1;
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html

    >>> number = nn.Parameter(torch.tensor(4.0))
    >>> optimizer = Adam([number], lr=0.1)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     torch.autograd.backward((number - 1) ** 2)
    ...     optimizer.step()
    >>> round(number.item(), 2)
    1.0
    """


def accuracy(
    model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, batch: int = 60
) -> float:
    """The share of right answers.

    >>> accuracy(nn.Identity(), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    with torch.no_grad():
        answers = torch.cat([model(x).argmax(1) for x in torch.split(inputs, batch)])
    return float((answers == labels).float().mean())


def _bar(steps: range, title: str) -> Any:
    """A bar where somebody looks: in a notebook or a terminal, not in a worker.

    tqdm's own switch, TQDM_DISABLE, does not reach its bars in notebooks (4.70).
    """
    seen = "ipykernel" in sys.modules or sys.stderr.isatty()
    if not seen or os.environ.get("TQDM_DISABLE"):
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, desc=title, leave=False)
