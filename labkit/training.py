"""Training a model for some steps: seeded, with a bar, and to be stopped."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

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
    adam = Adam(model.parameters())
    losses: list[float] = []
    model.train()
    try:
        for step in _bar(range(steps), title):
            rows = torch.randint(len(inputs), (batch,), generator=draw)
            adam.zero_grad()
            value = loss(model, inputs[rows], labels[rows])
            torch.autograd.backward(value)
            adam.step(rate * (1 + math.cos(math.pi * step / steps)) / 2)
            losses.append(float(value.detach()))
    except KeyboardInterrupt:
        print(f"{title}: stopped after {len(losses)} of {steps} steps; what was learned is kept")
    finally:
        model.eval()
        # Gradients are as large as the model, and nobody reads them any more.
        adam.zero_grad()
        del adam
        return_free_memory(collect=False)
    return losses


class Adam:
    """Adam with torch's defaults, step for step what `torch.optim.Adam` does.

    torch's own imports the compiler at its first use: a second or two, and some 80 MB that stay
    in this process.

    Args:
        parameters: what is trained; those that need no gradient are left alone.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1;
    https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html

    >>> number = nn.Parameter(torch.tensor(4.0))
    >>> adam = Adam([number])
    >>> for _ in range(200):
    ...     adam.zero_grad()
    ...     torch.autograd.backward((number - 1) ** 2)
    ...     adam.step(0.1)
    >>> round(number.item(), 2)
    1.0
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._moments = [
            (p, torch.zeros_like(p), torch.zeros_like(p)) for p in parameters if p.requires_grad
        ]
        self._steps = 0

    def step(self, rate: float) -> None:
        """Move every parameter that has a gradient.

        Args:
            rate: the learning rate of this step.
        """
        self._steps += 1
        decay, square_decay, least = 0.9, 0.999, 1e-8
        slope = 1 - decay**self._steps
        spread = math.sqrt(1 - square_decay**self._steps)
        with torch.no_grad():
            for parameter, mean, square in self._moments:
                gradient = parameter.grad
                if gradient is None:
                    continue
                mean.lerp_(gradient, 1 - decay)
                square.mul_(square_decay).addcmul_(gradient, gradient, value=1 - square_decay)
                root = square.sqrt().div_(spread).add_(least)
                parameter.addcdiv_(mean, root, value=-rate / slope)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter, _, _ in self._moments:
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
