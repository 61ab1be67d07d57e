"""Data that come with the notebooks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from labkit.files import folder_above

_FOLDER = Path("data", "digits")
_SIDE = 8


def digits(
    side: int = _SIDE, *, folder: str | Path | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Handwritten digits, to train with and to test with.

    Args:
        side: pixels of an image's side; stored are 8, and more are made by repeating them.
        folder: of the four files; None: ``data/digits`` here or in a folder above.

    Returns:
        ``X_train, y_train, X_test, y_test``: 1437 and 360 images of shape (rows, 1, side, side),
        float32 from 0 to 1, and labels of shape (rows,), int64 from 0 to 9.

    Raises:
        ValueError: a side below 1.
        FileNotFoundError: the files are not there.

    Source: data/digits/README.md.

    >>> X_train, y_train, X_test, y_test = digits(32)
    >>> X_train.shape, y_test.shape
    (torch.Size([1437, 1, 32, 32]), torch.Size([360]))
    """
    if side < 1:
        raise ValueError(f"side={side}: give at least 1 pixel")
    where = _folder() if folder is None else Path(folder)
    X_train, y_train, X_test, y_test = (  # noqa: N806  (as scikit-learn calls them)
        torch.from_numpy(np.load(where / f"{name}.npy", allow_pickle=False))
        for name in ("X_train", "y_train", "X_test", "y_test")
    )
    return _images(X_train, side), y_train, _images(X_test, side), y_test


def _folder() -> Path:
    found = folder_above(_FOLDER)
    if found is None:
        raise FileNotFoundError(
            f"there is no folder {_FOLDER} in {Path.cwd()} or above it; name it: folder=..."
        )
    return found


def _images(rows: torch.Tensor, side: int) -> torch.Tensor:
    images = rows.reshape(-1, 1, _SIDE, _SIDE)
    return images if side == _SIDE else nn.functional.interpolate(images, (side, side))
