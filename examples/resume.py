"""A training that is stopped on its way, and goes on as if nothing had happened.

Shows: Checkpoint, Trainer.resume; the resumed run ends with the same bits.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fastnn as fn

rng = np.random.default_rng(0)
x = rng.normal(size=(3000, 20))
y = (np.sin(x[:, 0]) + x[:, 1] * x[:, 2] > 0).astype(int)


def make_trainer():
    """The same net and settings each time, as a script that is started again would make them."""
    net = fn.Sequential([fn.Dense(64, "relu"), fn.Dropout(0.2), fn.Dense(1)], input_size=20, seed=5)
    rate = fn.schedules.cosine(3e-3, 20, per="epoch")
    return fn.Trainer(net, loss="binary_cross_entropy", optimizer=fn.AdamW(rate), metrics=("accuracy",), batch_size=50)


def fit(trainer, folder, *more):
    """Keep a checkpoint every 25 steps, in the midst of epochs too."""
    callbacks = [fn.EarlyStopping(patience=20), fn.Checkpoint(folder, every_steps=25), *more]
    return trainer.fit(x, y, epochs=20, validation_split=0.2, verbose=0, callbacks=callbacks)


def fail(epoch, logs):
    if epoch == 6:
        raise RuntimeError("something else in the script went wrong")


with TemporaryDirectory() as top:
    whole = make_trainer()
    fit(whole, Path(top) / "whole")

    folder = Path(top) / "stopped"
    stopped = make_trainer()
    try:
        fit(stopped, folder, fail)
    except RuntimeError as error:
        print(f"stopped after {stopped.history.epochs} epochs: {error}")
    print("in the folder:", *sorted(path.name for path in folder.iterdir()))

    resumed = make_trainer()
    resumed.resume(folder)
    history = fit(resumed, folder)
    print(f"resumed: {history.epochs} epochs, validation accuracy {max(history['val_accuracy']):.3f}")

for name, values in whole.net.parameters().items():
    assert np.array_equal(values, resumed.net.parameters()[name])
assert whole.history["val_loss"] == history["val_loss"]
print("weights and history have the bits of a run that was never stopped")
