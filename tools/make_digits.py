"""Write data/digits/*.npy from the digits that come with scikit-learn. Same files on every machine.

python tools/make_digits.py            # into data/digits
python tools/make_digits.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FOLDER = Path(__file__).resolve().parents[1] / "data" / "digits"


def make_digits() -> dict[str, np.ndarray]:
    """Images of 8 by 8 pixels, float32 from 0 to 1, and their digits; a fifth is for testing."""
    images, digits = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8)
    # An old generator on purpose: scikit-learn draws from it in the same way on every platform.
    split = train_test_split(
        images, digits.astype(np.int64), test_size=0.2, stratify=digits, random_state=0
    )
    return dict(zip(("X_train", "X_test", "y_train", "y_test"), split, strict=True))


def main(folder: Path) -> None:
    """Write the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in make_digits().items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
        print(f"{name}.npy: {array.shape} {array.dtype}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
