"""Estimators with scikit-learn's interface; needs the extra ``fastnn-cpu[sklearn]``."""

try:
    import scipy  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    import sklearn  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"fastnn.sklearn needs {error.name}, which is not installed: pip install 'fastnn-cpu[sklearn]'."
    ) from None

from .classifier import FastNNClassifier
from .regressor import FastNNRegressor

__all__ = ["FastNNClassifier", "FastNNRegressor"]
