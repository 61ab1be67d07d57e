"""Training a model for some steps: seeded, with a bar, and to be stopped."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.adam import adam

from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
            optimizer.step(rate * (1 + math.cos(math.pi * step / steps)) / 2)
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


class Adam:
    """`torch.optim.Adam` with its defaults, without importing torch's compiler.

    The class in torch does so at its first use: a second or two, and some 80 MB that stay in this
    process. The function below it, which does the work, does not.

    Args:
        parameters: what is trained; those that need no gradient are left alone.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1;
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html

    >>> number = nn.Parameter(torch.tensor(4.0))
    >>> optimizer = Adam([number])
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     torch.autograd.backward((number - 1) ** 2)
    ...     optimizer.step(0.1)
    >>> round(number.item(), 2)
    1.0
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._state = [
            (torch.zeros_like(p), torch.zeros_like(p), torch.zeros(())) for p in self._parameters
        ]

    def step(self, rate: float) -> None:
        """Move every parameter that has a gradient.

        Args:
            rate: the learning rate of this step.
        """
        moved = [
            (parameter, parameter.grad, *state)
            for parameter, state in zip(self._parameters, self._state, strict=True)
            if parameter.grad is not None
        ]
        if not moved:
            return
        parameters, gradients, means, squares, steps = map(list, zip(*moved, strict=True))
        with torch.no_grad():
            adam(
                *(parameters, gradients, means, squares, [], steps),
                lr=rate,
                beta1=0.9,
                beta2=0.999,
                eps=1e-8,
                weight_decay=0.0,
                amsgrad=False,
                maximize=False,
            )

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None


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
