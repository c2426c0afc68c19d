"""Data that come with the package, so that a first training run needs no download."""

from importlib import resources

import numpy as np
import numpy.typing as npt

__all__ = ["load_digits"]

_Samples = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def load_digits() -> tuple[_Samples, _Samples]:
    """Handwritten digits, 8 x 8 pixels: ``(x_train, y_train), (x_test, y_test)``.

    The 5,620 samples of the UCI data set "Optical Recognition of Handwritten Digits" (1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0). ``x`` is (n, 64) uint8 with values 0 to 16, ``y`` is (n,) uint8 with
    the digit. Every fifth sample (index % 5 == 4) is in the test set: 4,496 train, 1,124 test.
    """
    archive = resources.files(__package__).joinpath("digits.npz")
    with archive.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        x, y = arrays["x"], arrays["y"]
    test = np.arange(len(x)) % 5 == 4
    return (x[~test], y[~test]), (x[test], y[test])
