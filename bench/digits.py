"""The data and the network that several parts measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from labkit import datasets

if TYPE_CHECKING:
    import torch

_FOLDER = Path(__file__).parents[1] / "data" / "digits"


def digits(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 32 x 32 and their labels; ``part`` is "train" or "test"."""
    x_train, y_train, x_test, y_test = datasets.digits(32, folder=_FOLDER)
    return (x_train, y_train) if part == "train" else (x_test, y_test)


def cnn(widths: tuple[int, int, int, int] = (32, 128, 256, 256), dense: int = 256) -> nn.Module:
    """A convolutional network; of about 2 million weights with these widths."""

    def block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return conv, nn.BatchNorm2d(outputs), nn.ReLU()

    one, two, three, four = widths
    return nn.Sequential(
        *(*block(1, one), nn.MaxPool2d(2), *block(one, two), nn.MaxPool2d(2)),
        *(*block(two, three), nn.MaxPool2d(2), *block(three, four)),
        *(nn.Flatten(), nn.Linear(16 * four, dense), nn.ReLU(), nn.Linear(dense, 10)),
    )
