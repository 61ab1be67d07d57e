"""The digits of data/digits: what their note says is so, and they can be made again."""

import runpy
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "data" / "digits"
NAMES = ("X_train", "y_train", "X_test", "y_test")


@pytest.fixture(scope="module")
def digits():
    return {name: np.load(FOLDER / f"{name}.npy", allow_pickle=False) for name in NAMES}


def test_shapes_types_and_ranges_are_those_of_the_note(digits):
    note = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, array in digits.items():
        assert f"| `{name}.npy` | {array.shape} | {array.dtype} |" in note
    for name in ("X_train", "X_test"):
        assert digits[name].min() == 0
        assert digits[name].max() == 1
        assert np.array_equal(digits[name] * 16, np.round(digits[name] * 16))
    for name in ("y_train", "y_test"):
        assert sorted(set(digits[name].tolist())) == list(range(10))


def test_both_parts_have_the_same_share_of_every_digit(digits):
    train, test = (np.bincount(digits[name]) / len(digits[name]) for name in ("y_train", "y_test"))
    assert np.abs(train - test).max() < 0.005


def test_no_image_is_in_both_parts(digits):
    train = {image.tobytes() for image in digits["X_train"]}
    assert not any(image.tobytes() in train for image in digits["X_test"])


def test_they_can_be_made_again(digits, tmp_path):
    script = runpy.run_path(str(ROOT / "tools" / "make_digits.py"))
    script["main"](tmp_path)
    for name, array in digits.items():
        again = np.load(tmp_path / f"{name}.npy", allow_pickle=False)
        assert again.dtype == array.dtype
        assert np.array_equal(again, array)
