"""100 steps agree with PyTorch in float64: the recordings of ``trajectories/make_trajectories.py``, replayed."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import fastnn as fn

OPTIMIZERS = ("sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw")
LOSSES = (
    "cross_entropy",
    "label_smoothing",
    "soft_labels",
    "binary_cross_entropy",
    "mse",
    "mae",
    "huber",
    "poisson",
)


class Recording:
    """One net and data set, and what PyTorch made of them under the settings of every case."""

    def __init__(self, family):
        with np.load(Path(__file__).parent / "trajectories" / f"{family}.npz") as file:
            self.data = dict(file)
        about = json.loads(str(self.data["about"]))
        self.layers = about["layers"]
        self.cases = about["cases"]
        self.batch_size = about["batch_size"]
        self.epochs = about["epochs"]
        self.snapshot_epochs = about["snapshots"]
        self.x = self.data["x"]
        self.initial = {name.partition("/")[2]: a for name, a in self.data.items() if name.startswith("initial/")}

    def recorded(self, case, name):
        return self.data[f"recorded/{name}"][list(self.cases).index(case)]

    def batches(self):
        return [slice(first, first + self.batch_size) for first in range(0, len(self.x), self.batch_size)]


RECORDINGS = {family: Recording(family) for family in ("plain", "batchnorm")}
every_case = pytest.mark.parametrize(
    ("recording", "case"),
    [
        pytest.param(recording, case, id=f"{family}-{case}")
        for family, recording in RECORDINGS.items()
        for case in recording.cases
    ],
)


def make(module, declaration, **more):
    kind, settings = declaration
    return getattr(module, kind)(**{**settings, **more})


def make_trainer(recording, settings):
    """The recorded net at its recorded start, and a trainer."""
    layers = [make(fn, layer) for layer in settings.get("layers", recording.layers)]
    net = fn.Sequential(layers, input_size=recording.x.shape[1], dtype="float64")
    parameters = net.parameters()
    assert set(parameters) == set(recording.initial)
    for name, value in recording.initial.items():
        parameters[name][...] = value
    kind, rule = settings["optimizer"]
    if "schedule" in settings:
        rule = {**rule, "lr": make(fn.schedules, settings["schedule"], lr=rule["lr"])}
    return fn.Trainer(
        net,
        loss=make(fn.losses, settings["loss"]),
        optimizer=make(fn, (kind, rule)),
        clip=make(fn, settings["clip"]) if "clip" in settings else None,
        regularizer=make(fn, settings["regularizer"]) if "regularizer" in settings else None,
        batch_size=settings.get("batch_size", recording.batch_size),
        micro_batch=settings.get("micro_batch"),
        n_threads=settings.get("n_threads"),
    )


def copies(net):
    return {name: np.array(view) for name, view in net.parameters().items()}


def fit(recording, case, **changes):
    """The net after all epochs, the epochs' losses, and the parameters after the epochs with a snapshot."""
    settings = {**recording.cases[case], **changes}
    trainer = make_trainer(recording, settings)
    snapshots = []

    def keep(epoch, logs):
        if epoch + 1 in recording.snapshot_epochs:
            snapshots.append(copies(trainer.net))

    class_weight = settings.get("class_weight")
    history = trainer.fit(
        recording.x,
        recording.data[settings["targets"]],
        epochs=recording.epochs,
        class_weight=None if class_weight is None else dict(enumerate(class_weight)),
        shuffle=settings.get("shuffle", False),
        verbose=0,
        callbacks=[keep],
    )
    assert len(snapshots) == len(recording.snapshot_epochs)
    return trainer.net, np.array(history["loss"]), snapshots


def row_weights(recording, case):
    """The weight of each row by its class; 1 without class weights."""
    settings = recording.cases[case]
    if "class_weight" not in settings:
        return np.ones(len(recording.x))
    return np.array(settings["class_weight"])[recording.data[settings["targets"]]]


def excess(actual, expected):
    """The largest difference in units of what is allowed for a tensor: at most 1 agrees.

    The gradient of a bias directly before BatchNorm is rounding noise around 0. It is compared too: this noise lies far
    below the eps that Adam and RMSprop divide it by.
    """
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / (1e-8 * (1 + np.abs(expected).max()))


def worst(recording, case, snapshots):
    return max(
        excess(value, recording.recorded(case, name)[place])
        for place, snapshot in enumerate(snapshots)
        for name, value in snapshot.items()
    )


# ---- the recordings ----


@pytest.mark.parametrize("family", RECORDINGS)
def test_every_optimizer_is_recorded_with_every_loss(family):
    assert {f"{rule}-{loss}" for rule in OPTIMIZERS for loss in LOSSES} <= set(RECORDINGS[family].cases)


@pytest.mark.parametrize("family", RECORDINGS)
def test_a_hundred_steps_with_a_short_batch_are_recorded(family):
    recording = RECORDINGS[family]
    assert recording.epochs * len(recording.batches()) == 100
    assert recording.snapshot_epochs[-1] == recording.epochs
    assert 1 < len(recording.x) % recording.batch_size < recording.batch_size


@every_case
def test_recorded_parameters_move(recording, case):
    """Standing still would agree with anything; a bias directly before BatchNorm has no reason to move."""
    still = {
        f"{place}.bias"
        for place, (layer, following) in enumerate(pairwise(recording.layers))
        if layer[0] == "Dense" and following[0] == "BatchNorm"
    }
    for name in set(recording.initial) - still:
        path = [recording.initial[name], *recording.recorded(case, name)]
        for before, after in pairwise(path):
            assert np.abs(after - before).max() > 1e-3, name


# ---- the agreement ----


@every_case
def test_fit(recording, case):
    net, losses, snapshots = fit(recording, case)
    assert worst(recording, case, snapshots) <= 1
    outputs = recording.recorded(case, "outputs")
    assert excess(net.predict(recording.x[: len(outputs)]), outputs) <= 1
    weights = row_weights(recording, case)
    batch_weights = np.array([weights[rows].sum() for rows in recording.batches()])
    steps = recording.recorded(case, "losses").reshape(recording.epochs, -1)
    np.testing.assert_allclose(losses, steps @ batch_weights / batch_weights.sum(), rtol=0, atol=1e-10)


@every_case
def test_train_step(recording, case):
    settings = recording.cases[case]
    trainer = make_trainer(recording, settings)
    x, y = recording.x, recording.data[settings["targets"]]
    weights = row_weights(recording, case) if "class_weight" in settings else None
    losses, snapshots = [], []
    for epoch in range(1, recording.epochs + 1):
        for rows in recording.batches():
            losses.append(trainer.train_step(x[rows], y[rows], None if weights is None else weights[rows]))
        if epoch in recording.snapshot_epochs:
            snapshots.append(copies(trainer.net))
    np.testing.assert_allclose(losses, recording.recorded(case, "losses"), rtol=0, atol=1e-10)
    assert worst(recording, case, snapshots) <= 1


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("family", RECORDINGS)
@pytest.mark.parametrize(
    ("loss", "final"),
    [(loss, "Softmax") for loss in LOSSES[:3]] + [("binary_cross_entropy", "Sigmoid")],
)
def test_final_layer_fused_with_its_loss(family, rule, loss, final):
    recording, case = RECORDINGS[family], f"{rule}-{loss}"
    _, _, snapshots = fit(recording, case, layers=[*recording.layers, (final, {})])
    assert worst(recording, case, snapshots) <= 1


@pytest.mark.parametrize("case", RECORDINGS["plain"].cases)
def test_micro_batches_and_threads(case):
    """The gradient of a batch in pieces is that of the whole batch."""
    recording = RECORDINGS["plain"]
    _, _, snapshots = fit(recording, case, micro_batch=5, n_threads=2)
    assert worst(recording, case, snapshots) <= 1


# ---- the comparison sees small mistakes ----


def with_batchnorm(**changes):
    return [
        (kind, {**settings, **changes} if kind == "BatchNorm" else settings)
        for kind, settings in RECORDINGS["batchnorm"].layers
    ]


def optimizer(family, case, kind=None, **changes):
    """The case's optimizer with other settings, or another one with the case's."""
    own, settings = RECORDINGS[family].cases[case]["optimizer"]
    return (kind or own, {**settings, **changes})


WRONG = [
    ("plain", "sgd-mse", {"optimizer": optimizer("plain", "sgd-mse", lr=0.05 * (1 + 1e-6))}),
    ("plain", "sgd-mse", {"shuffle": True}),
    ("plain", "sgd-mse", {"batch_size": 15}),
    ("plain", "momentum-mse", {"optimizer": optimizer("plain", "momentum-mse", nesterov=True)}),
    ("plain", "nesterov-mse", {"optimizer": optimizer("plain", "nesterov-mse", nesterov=False)}),
    ("plain", "rmsprop-mse", {"optimizer": optimizer("plain", "rmsprop-mse", alpha=0.95 + 1e-6)}),
    ("plain", "rmsprop-mse", {"optimizer": optimizer("plain", "rmsprop-mse", eps=1e-6)}),
    ("plain", "adam-mse", {"optimizer": optimizer("plain", "adam-mse", betas=(0.8, 0.99 + 1e-6))}),
    ("plain", "adam-mse", {"optimizer": optimizer("plain", "adam-mse", betas=(0.8 + 1e-6, 0.99))}),
    ("plain", "adam-mse", {"optimizer": optimizer("plain", "adam-mse", eps=1e-7)}),
    ("plain", "adamw-mse", {"optimizer": optimizer("plain", "adamw-mse", kind="Adam")}),
    ("plain", "adam-weight_decay", {"optimizer": optimizer("plain", "adam-weight_decay", kind="AdamW")}),
    ("plain", "sgd-label_smoothing", {"loss": ("CrossEntropy", {"label_smoothing": 0.1 + 1e-6})}),
    ("plain", "sgd-soft_labels", {"targets": "labels"}),
    ("plain", "sgd-huber", {"loss": ("Huber", {"delta": 0.6 + 1e-6})}),
    ("plain", "sgd-class_weight", {"class_weight": [0.5, 1.0, 2.5 + 1e-6]}),
    ("plain", "sgd-clip_norm", {"clip": ("ClipNorm", {"v": 0.75 - 1e-6})}),
    ("plain", "momentum-clip_tensor_norm", {"clip": ("ClipNorm", {"v": 0.4})}),
    ("plain", "sgd-clip_value-asymmetric", {"clip": ("ClipValue", {"min": -0.25, "max": 0.25})}),
    ("plain", "adam-clip_norm-l2", {"regularizer": ("L2", {"lam": 0.005})}),
    ("plain", "nesterov-elastic_net", {"regularizer": ("ElasticNet", {"lam": 0.01, "beta": 0.25})}),
    ("plain", "momentum-step", {"schedule": ("step", {"every": 31, "factor": 0.3})}),
    ("plain", "adamw-one_cycle", {"schedule": ("one_cycle", {"length": 101})}),
    ("batchnorm", "sgd-mse", {"layers": with_batchnorm(unbiased=False)}),
    ("batchnorm", "sgd-mse", {"layers": with_batchnorm(decay=0.9)}),
    ("batchnorm", "sgd-mse", {"layers": with_batchnorm(eps=1e-5)}),
]


@pytest.mark.parametrize(("family", "case", "changes"), WRONG)
def test_a_wrong_setting_does_not_agree(family, case, changes):
    recording = RECORDINGS[family]
    _, _, snapshots = fit(recording, case, **changes)
    assert worst(recording, case, snapshots) > 1
