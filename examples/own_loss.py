"""Predict an interval instead of a number, with quantile losses of one's own.

Shows: a loss as a function that returns value and gradient, several outputs, Standardize, how to check what came out.
"""

import numpy as np

import fastnn as fn

QUANTILES = np.array([0.05, 0.5, 0.95])


def quantile_loss(prediction, y):
    """Mean of max(q e, (q - 1) e) with e = y - prediction, one quantile q per output."""
    error = y - prediction
    value = np.mean(np.maximum(QUANTILES * error, (QUANTILES - 1) * error))
    gradient = np.where(error > 0, -QUANTILES, 1 - QUANTILES) / error.size
    return value, gradient


def draw(rng, n):
    """Delivery times: they grow with the distance, and so does their spread, more to the long side."""
    distance, hour = rng.uniform(0, 20, n), rng.uniform(8, 20, n)
    rush = np.exp(-((hour - 17) ** 2))
    minutes = 5 + 2 * distance * (1 + rush) + rng.gamma(1 + distance / 5, 2, n)
    return np.column_stack([distance, hour]), minutes


rng = np.random.default_rng(0)
x, minutes = draw(rng, 8000)
x_test, minutes_test = draw(rng, 4000)
targets = np.repeat(minutes[:, None], 3, axis=1)  # each output has the same target, and another loss

net = fn.Sequential([fn.Standardize(), fn.Dense(64, "silu"), fn.Dense(64, "silu"), fn.Dense(3)], input_size=2, seed=0)
trainer = fn.Trainer(
    net, loss=quantile_loss, optimizer=fn.Adam(fn.schedules.cosine(1e-2, 40, per="epoch")), batch_size=200
)
trainer.fit(x, targets, epochs=40, verbose=0)

low, middle, high = net.predict(x_test).T
for name, value in (("5 %", low), ("50 %", middle), ("95 %", high)):
    print(f"{np.mean(minutes_test < value):.1%} of the deliveries are below the {name} quantile")

for distance, hour in ((2, 10), (15, 10), (15, 17)):
    (low, middle, high), *_ = net.predict([[distance, hour]])
    print(f"{distance:2} km at {hour} h: {middle:.0f} minutes, probably {low:.0f} to {high:.0f}")
