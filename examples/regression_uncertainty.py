"""Say how sure a regression is, by Monte-Carlo dropout and by an ensemble.

Shows: predict_mc, float64, an own standardisation of the targets, nets that train in threads of Python side by side.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastnn as fn

rng = np.random.default_rng(0)
x = np.concatenate([rng.uniform(-3, -1, 300), rng.uniform(1, 3, 300)])[:, None]  # nothing is known from -1 to 1
y = np.sin(2 * x) + 0.3 * x + 0.1 * rng.normal(size=x.shape)
mean, scale = y.mean(), y.std()


def train(seed, dropout):
    hidden = [fn.Dense(128, "relu"), fn.Dropout(dropout), fn.Dense(128, "relu"), fn.Dropout(dropout)]
    net = fn.Sequential([fn.Standardize(), *hidden, fn.Dense(1)], input_size=1, dtype="float64", seed=seed)
    trainer = fn.Trainer(net, loss="mse", optimizer=fn.Adam(3e-3), batch_size=50, n_threads=1)
    trainer.fit(x, (y - mean) / scale, epochs=60, verbose=0)
    return net


points = np.array([[-2.0], [-1.0], [0.0], [1.0], [2.0], [4.0]])
net = train(seed=0, dropout=0.1)
mc_mean, mc_deviation = (values[:, 0] * scale for values in net.predict_mc(points, samples=1000, seed=1))

with ThreadPoolExecutor(max_workers=2) as pool:
    members = list(pool.map(lambda seed: train(seed, dropout=0.0), range(6)))
predictions = np.stack([member.predict(points)[:, 0] * scale for member in members])

print("   x   truth   dropout          ensemble")
truth = np.sin(2 * points[:, 0]) + 0.3 * points[:, 0]
for row, point in enumerate(points[:, 0]):
    ensemble = predictions[:, row]
    print(
        f"{point:4.0f}  {truth[row]:6.2f}  {mc_mean[row] + mean:6.2f} +- {mc_deviation[row]:.2f}"
        f"  {ensemble.mean() + mean:6.2f} +- {ensemble.std():.2f}"
    )
