"""Train on real handwritten digits, with everything against over-fitting, and save the net.

Shows: Scale, BatchNorm, dropout, L2, clipping, early stopping, a test set that is used once, a model file.
"""

import numpy as np

import fastnn as fn
from fastnn.datasets import load_digits

(x, y), (x_test, y_test) = load_digits()
held_out = np.arange(len(x)) % 10 == 9

net = fn.Sequential(
    [
        fn.Scale(1 / 16),
        *(fn.Dense(256), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.3)),
        *(fn.Dense(128), fn.BatchNorm(), fn.ReLU(), fn.Dropout(0.3)),
        fn.Dense(10),
    ],
    input_size=64,
    seed=0,
)
net.summary()

trainer = fn.Trainer(
    net,
    loss="cross_entropy",
    optimizer=fn.Adam(2e-3),
    regularizer=fn.L2(1e-5),
    clip=fn.ClipNorm(1.0),
    metrics=("accuracy",),
    batch_size=128,
)
history = trainer.fit(
    x[~held_out],
    y[~held_out],
    epochs=40,
    validation_data=(x[held_out], y[held_out]),
    callbacks=[fn.EarlyStopping(patience=8)],
)
print(f"{history.stopped_because}; the best epoch was {history.best_epoch + 1}")

scores = net.evaluate(x_test, y_test)
print(f"test accuracy {scores['accuracy']:.4f}")

net.save("digits.safetensors")
folded = fn.load("digits.safetensors").fold()
agree = np.mean(folded.predict(x_test).argmax(axis=1) == net.predict(x_test).argmax(axis=1))
print(f"saved, loaded and folded: {agree:.0%} of the answers are the same")
