"""A pytest plugin that puts fastnn's estimators in the place of scikit-learn's MLP, for scikit-learn's own tests of it.

Two names that those tests read are private there: the count of epochs without improvement, and the optimizer's rate.
"""

from types import SimpleNamespace

import sklearn.neural_network

from fastnn.sklearn import FastNNClassifier, FastNNRegressor


class _PrivateNames:
    @property
    def _no_improvement_count(self):
        return self._members[0].progress.no_improvement

    @property
    def _optimizer(self):
        return SimpleNamespace(learning_rate=self._members[0].progress.learning_rate)


class MLPClassifier(_PrivateNames, FastNNClassifier):
    pass


class MLPRegressor(_PrivateNames, FastNNRegressor):
    pass


sklearn.neural_network.MLPClassifier = MLPClassifier
sklearn.neural_network.MLPRegressor = MLPRegressor
