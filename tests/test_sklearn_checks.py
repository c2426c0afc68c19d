"""scikit-learn's own checks of estimators, none expected to fail, and its tools around ours."""

import pytest
from optional import needed

parametrize_with_checks = needed("sklearn.utils.estimator_checks").parametrize_with_checks
FastNNClassifier = needed("fastnn.sklearn").FastNNClassifier
FastNNRegressor = needed("fastnn.sklearn").FastNNRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FAST = [FastNNClassifier(), FastNNRegressor()]
VARIANTS = [
    estimator(**parameters)
    for estimator in (FastNNClassifier, FastNNRegressor)
    for parameters in (
        {"n_ensemble": 2},
        {"dropout": 0.1, "batch_norm": True, "scale": "standard", "learning_rate_init": 0.01},
        {"solver": "lbfgs", "scale": "standard", "alpha": 1.0},
    )
]


@parametrize_with_checks(FAST)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def undefined(estimator):
    """Checks of what such an estimator does not promise."""
    if not estimator.dropout and not estimator.batch_norm:
        return {}
    reason = "masks are drawn per row, and BatchNorm's statistics are unweighted"
    return dict.fromkeys([f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")], reason)


@pytest.mark.long
@parametrize_with_checks(VARIANTS, expected_failed_checks=undefined)
def test_scikit_learns_checks_of_variants(estimator, check):
    check(estimator)
