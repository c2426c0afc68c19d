"""The pictures: that they show the numbers, name the layers, and need matplotlib only when drawn."""

import subprocess
import sys

import numpy as np
import pytest
from optional import needed

import fastnn as fn


def samples():
    random = np.random.default_rng(2)
    x = random.standard_normal((200, 6))
    return x, x[:, :3].argmax(axis=1)


def net_of(hidden):
    layers = [layer for _ in range(hidden) for layer in (fn.Dense(16, "tanh"), fn.Dropout(0.2))]
    return fn.Sequential([*layers, fn.Dense(3)], input_size=6, seed=0)


def titles(figure):
    return [axes.get_title(loc="left").splitlines()[0] for axes in figure.axes]


def overlaps(figure):
    """Pairs of texts of the figure that lie on each other."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    hidden = set()  # labels of ticks beyond the ends of their axis, which are made but not drawn
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            hidden |= {id(tick.label1) for tick in ticks if not low <= tick.get_loc() <= high}
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in hidden]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    pairs = ((a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    return [(a[0], b[0]) for a, b in pairs if a[1].overlaps(b[1])]


def test_overlaps_finds_some():
    needed("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.5, "two")
    assert overlaps(figure) == [("two", "one")]


def test_importing_needs_no_matplotlib():
    code = "import sys, fastnn as fn; fn.plot, fn.Diagnostics; print([m for m in sys.modules if 'matplotlib' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("draw", ["activations", "weights", "gradients"])
def test_without_matplotlib_the_extra_is_named(monkeypatch, draw):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    x, y = samples()
    arguments = {"activations": (x,), "weights": (), "gradients": (x, y)}[draw]
    with pytest.raises(ImportError, match=r"pip install 'fastnn-cpu\[plot\]'"):
        getattr(fn.plot, draw)(net_of(1), *arguments)


@pytest.mark.parametrize("hidden", [1, 11])
def test_activations(hidden, tmp_path):
    needed("matplotlib")
    x, _ = samples()
    net = net_of(hidden)
    figure = fn.plot.activations(net, x, path=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    dense = list(range(0, 2 * hidden + 1, 2))
    assert titles(figure) == [f"{i}  Dense(16, Tanh())" for i in dense[:-1]] + [f"{dense[-1]}  Dense(3)"]
    last = net.predict(x)
    assert f"mean {last.mean():.2g}, std {last.std():.2g}" in figure.axes[-1].get_title(loc="left")
    assert overlaps(figure) == []


def test_activations_before_the_first_fit():
    needed("matplotlib")
    x, _ = samples()
    net = fn.Sequential([fn.Standardize(), fn.Dense(3)], input_size=6)
    assert fn.plot.activations(net, 5 + 2 * x).axes[0].get_title(loc="left").endswith("std 1")
    assert not net.parameters()["0.scale"].any(), "the net itself still has no statistics"


def test_a_density_says_what_it_leaves_out():
    needed("matplotlib")
    x = np.zeros((100, 1))
    x[:30, 0] = np.linspace(1, 2, 30)
    net = fn.Sequential([fn.ReLU()], input_size=1)
    figure = fn.plot.activations(net, x)
    assert "70 % zero" in figure.axes[0].get_title(loc="left")
    (stairs,) = figure.axes[0].patches
    edges, heights = stairs.get_data().edges, stairs.get_data().values
    assert edges[0] > 0.9
    np.testing.assert_allclose((heights * np.diff(edges)).sum(), 1)
    dense = fn.Sequential([fn.Dense(4)], input_size=5)
    dense.parameters()["0.weight"][0, 0] = np.inf
    assert "5 % not finite" in fn.plot.weights(dense).axes[0].get_title(loc="left")
    for constant in (-1e30, 0.1, 3e8):
        dense.parameters()["0.weight"][...] = constant
        (stairs,) = fn.plot.weights(dense).axes[0].patches
        heights, edges = stairs.get_data().values, stairs.get_data().edges
        (filled,) = np.flatnonzero(heights)
        assert edges[filled] < np.float32(constant) < edges[filled + 1]
    dense.parameters()["0.weight"][...] = np.nan
    assert fn.plot.weights(dense).axes[0].get_title(loc="left").endswith("\nnot finite")


def test_weights_of_a_net_and_of_the_folded_one():
    needed("matplotlib")
    figure = fn.plot.weights(net_of(2))
    assert titles(figure) == ["0  Dense(16, Tanh())", "2  Dense(16, Tanh())", "4  Dense(3)"]
    assert overlaps(figure) == []
    assert titles(fn.plot.weights(net_of(2).fold())) == [f"{i}{name[1:]}" for i, name in enumerate(titles(figure))]


@pytest.mark.parametrize("hidden", [1, 11])
def test_gradients_are_those_of_diagnose(hidden, tmp_path):
    needed("matplotlib")
    x, y = samples()
    net = net_of(hidden)
    figure = fn.plot.gradients(net, x, y, path=tmp_path / "g.png")
    assert (tmp_path / "g.png").stat().st_size > 1000
    (axes,) = figure.axes
    norms = [r.gradient_norm for r in fn.diagnose(net, x, y).layers if r.gradient_norm is not None]
    assert axes.get_xscale() == "log"
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), norms)
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == f"{2 * hidden}  Dense(3)"
    assert overlaps(figure) == []


def test_gradients_that_are_zero_or_not_finite_are_written():
    needed("matplotlib")
    x, y = samples()
    net = fn.Sequential([fn.Dense(4, "tanh", init="zeros"), fn.Dense(3)], input_size=6)
    assert "0" in [text.get_text() for text in fn.plot.gradients(net, x, y).axes[0].texts]
    net.parameters()["1.weight"][...] = np.nan
    assert [text.get_text() for text in fn.plot.gradients(net, x, y).axes[0].texts] == ["nan", "nan"]


def test_bad_input_is_named():
    needed("matplotlib")
    x, y = samples()
    for draw, arguments in ((fn.plot.activations, (x,)), (fn.plot.weights, ()), (fn.plot.gradients, (x, y))):
        with pytest.raises(TypeError, match=r"net must be a fastnn.Sequential, got 3"):
            draw(3, *arguments)
    with pytest.raises(ValueError, match="net has no Dense layer"):
        fn.plot.weights(fn.Sequential([fn.ReLU()], input_size=2))
    frozen = fn.Sequential([fn.Dense(3, trainable=False), fn.BatchNorm()], input_size=6)
    with pytest.raises(ValueError, match="needs a Dense layer that is trained"):
        fn.plot.gradients(frozen, x, y)
    with pytest.raises(ValueError, match="max_rows must be an int >= 1"):
        fn.plot.activations(net_of(1), x, max_rows=0)


@pytest.mark.parametrize("n_metrics", [0, 1, 5])
def test_history(n_metrics):
    needed("matplotlib")
    history = fn.History()
    for epoch in range(30):
        metrics = {f"metric_{i}": epoch / 30 for i in range(n_metrics)}
        both = {"loss": 1 / (epoch + 1), **metrics}
        history.append({**both, **{f"val_{name}": value + 0.1 for name, value in both.items()}})
    figure = history.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", *(f"metric_{i}" for i in range(n_metrics))]
    assert overlaps(figure) == []
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), history["loss"])


@pytest.mark.parametrize("hidden", [1, 11])
def test_diagnostics(hidden, tmp_path):
    needed("matplotlib")
    x, y = samples()
    diagnostics = fn.Diagnostics()
    with pytest.raises(ValueError, match="nothing to plot"):
        diagnostics.plot()
    layers = [layer for _ in range(hidden) for layer in (fn.Dense(16, "tanh"), fn.Dense(16, "relu"))]
    net = fn.Sequential([*layers, fn.Dense(3)], input_size=6, seed=0)
    trainer = fn.Trainer(net, clip=fn.ClipNorm(0.5), batch_size=20)
    trainer.fit(x, y, epochs=4, verbose=0, callbacks=[diagnostics])
    figure = diagnostics.plot(tmp_path / "d.png")
    assert (tmp_path / "d.png").stat().st_size > 1000
    assert titles(figure) == ["gradient norm of the weights", "dead units", "saturated units", "clipped steps"]
    assert [len(axes.lines) for axes in figure.axes] == [2 * hidden + 1, 2 * hidden, hidden, 1]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), diagnostics.history["gradient_norm.0.weight"])
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), [1, 2, 3, 4])
    assert overlaps(figure) == []
