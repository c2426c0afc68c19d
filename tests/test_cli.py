"""The command line: options, data files, exit codes, and one whole training."""

import subprocess
import sys

import numpy as np
import pytest
from optional import needed

import fastnn as fn
from fastnn import cli
from fastnn.datasets import load_digits


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    return {"x": x, "y": (x[:, 0] > 0).astype(int)}


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Run `fastnn train` on these arrays in an empty folder; returns the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(arrays, *options):
        np.savez(tmp_path / "data.npz", **arrays)
        return cli.main(["train", "data.npz", "--epochs", "3", "--hidden", "8", *options])

    return run


def sentence_of(capsys):
    error = capsys.readouterr().err
    assert error.startswith("fastnn: error: ")
    assert error.count("\n") == 1
    return error


# ---- options ----


def test_defaults():
    options = cli.make_parser().parse_args(["train", "digits"])
    assert options.hidden == [256, 128]
    assert options.dtype == "float32"
    assert options.threads is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "command"),
        (["fly"], "fly"),
        (["train"], "data"),
        (["train", "digits", "--epochs", "0"], "--epochs"),
        (["train", "digits", "--epochs", "two"], "'two'"),
        (["train", "digits", "--hidden", "8,,8"], "--hidden"),
        (["train", "digits", "--dropout", "1"], "--dropout"),
        (["train", "digits", "--learning-rate", "nan"], "--learning-rate"),
        (["train", "digits", "--l2", "-1"], "--l2"),
        (["train", "digits", "--clip-norm", "inf"], "--clip-norm"),
        (["train", "digits", "--seed", "-1"], "--seed"),
        (["train", "digits", "--dtype", "float16"], "--dtype"),
        (["train", "digits", "--colour"], "--colour"),
        (["train", "no-such-file.npz"], "no-such-file.npz"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(arguments, named, capsys):
    assert cli.main(arguments) == 2
    assert named in sentence_of(capsys)


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"fastnn {fn.__version__}\n"


def test_config_shows_the_instruction_set(capfd):
    assert cli.main(["config"]) == 0
    assert any(isa in capfd.readouterr().out for isa in ("baseline", "avx2", "avx512", "neon"))


def test_python_m_fastnn_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "fastnn", "fly"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("fastnn: error: ")


# ---- data ----


def test_digits():
    (x, y), (x_test, y_test) = load_digits()
    assert (x.shape, x_test.shape) == ((4496, 64), (1124, 64))
    assert x.dtype == y.dtype == x_test.dtype == y_test.dtype == np.uint8
    assert (x.min(), x.max()) == (0, 16)
    assert np.bincount(y_test).tolist() == [107, 119, 128, 115, 112, 121, 106, 90, 100, 126]
    assert np.bincount(y).min() > 400


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": np.zeros((0, 3))}, "(0, 3)"),
        ({"x": np.zeros((7, 3))}, "(7, 3)"),
        ({"x": np.full((200, 3), np.nan)}, "x"),
        ({"x": np.zeros((200, 3), dtype=complex)}, "x"),
        ({"y": np.zeros((200, 2), dtype=int)}, "(200, 2)"),
        ({"x": np.zeros((8, 3)), "y": np.zeros(8)}, "too few"),
        ({"x": np.array([[None] * 3] * 200)}, "data.npz"),
        ({"y": np.full(200, 7)}, "y has 1 class; at least 2 are needed"),
    ],
)
def test_unusable_data_is_one_sentence_and_code_2(train, samples, change, named, capsys):
    assert train(samples | change) == 2
    assert named in sentence_of(capsys)


@pytest.mark.parametrize(("name", "shape"), [("x_test", (9, 2)), ("y_test", (9, 3))])
def test_test_samples_of_other_columns_are_named(train, samples, name, shape, capsys):
    x, y = samples["x"], samples["x"][:, :2]
    parts = {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9]}
    assert train(parts | {name: np.zeros(shape)}) == 2
    assert f"{name} {shape}" in sentence_of(capsys)


def test_missing_arrays_are_named(train, samples, capsys):
    assert train({"x": samples["x"], "labels": samples["y"]}) == 2
    assert "labels" in sentence_of(capsys)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_file_of_another_kind(tmp_path, content, capsys):
    (tmp_path / "data.npz").write_bytes(content)
    assert cli.main(["train", str(tmp_path / "data.npz")]) == 2
    assert "data.npz" in sentence_of(capsys)


def test_a_single_array_is_no_archive(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert cli.main(["train", str(tmp_path / "x.npy")]) == 2
    assert "x.npy" in sentence_of(capsys)


# ---- training ----


@pytest.mark.parametrize("labels", [np.array([3, 8]), np.array(["no", "yes"])])
def test_classes_of_any_label(train, samples, labels, capsys):
    assert train({"X": samples["x"], "Y": labels[samples["y"]]}, "--quiet") == 0
    assert capsys.readouterr().out.startswith("test accuracy ")


def test_images_are_flattened_and_parts_kept(train, capsys):
    x = np.random.default_rng(0).integers(0, 256, size=(60, 4, 4)).astype(np.uint8)
    y = (x[:, 0, 0] > 127).astype(np.uint8)
    assert train({"x_train": x[:50], "y_train": y[:50], "x_test": x[50:], "y_test": y[50:]}, "--quiet") == 0
    assert "on 10 samples" in capsys.readouterr().out


def test_regression_reports_in_the_units_of_the_target(train, samples, capsys):
    y = 1000 + 50 * samples["x"][:, 0]
    options = ("--quiet", "--epochs", "60", "--dropout", "0", "--batch-size", "16", "--learning-rate", "0.01")
    assert train({"x": samples["x"], "y": y}, *options) == 0
    words = capsys.readouterr().out.replace(",", "").split()
    mse, r2 = float(words[2]), float(words[4])
    assert r2 > 0.8
    assert mse == pytest.approx((1 - r2) * y[4::5].var(), rel=1e-2)


def test_divergence_is_code_1(train, samples, capsys):
    arguments = ("--learning-rate", "1e38", "--clip-norm", "1e38", "--quiet")
    assert train({"x": samples["x"], "y": 1e3 * samples["x"][:, 0]}, *arguments) == 1
    assert "epoch" in sentence_of(capsys)


def test_interruption_is_code_130(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(fn.Trainer, "fit", interrupted)
    assert cli.main(["train", "digits", "--quiet"]) == 130
    assert sentence_of(capsys) == "fastnn: error: interrupted\n"


def test_without_matplotlib_the_score_is_still_printed(train, samples, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert train(samples, "--quiet") == 0
    assert "matplotlib" in capsys.readouterr().out


def test_curves_are_drawn(train, samples, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert train(samples, "--quiet", "--out", "new/folder") == 0
    picture = (tmp_path / "new/folder/data-curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert "new/folder/data-curves.png" in capsys.readouterr().out


def test_the_folder_for_pictures_is_tried_before_training(train, samples, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert train(samples, "--out", "file/folder") == 2  # and not a line of training before it
    assert "--out" in sentence_of(capsys)


def test_nobody_reads_the_output():
    command = subprocess.Popen(
        [sys.executable, "-m", "fastnn", "config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    command.stdout.close()
    assert command.stderr.read() == ""
    command.stderr.close()
    assert command.wait() == 1


def test_progress_is_printed_unless_quiet(train, samples, capsys):
    assert train(samples) == 0
    assert "val_loss" in capsys.readouterr().out


def test_the_recipe_reaches_its_accuracy_on_the_digits(tmp_path, capsys):
    assert cli.main(["train", "digits", "--quiet", "--out", str(tmp_path)]) == 0
    assert float(capsys.readouterr().out.split()[2]) >= 0.975


# ---- models and exports ----


@pytest.fixture
def model(tmp_path):
    net = fn.Sequential([fn.Dense(5, activation="relu"), fn.Dense(2)], input_size=3)
    net.save(tmp_path / "small.safetensors")
    return net, tmp_path / "small.safetensors"


def test_training_leaves_a_model(train, samples, tmp_path, capsys):
    assert train(samples, "--quiet") == 0
    assert "model saved in data.safetensors" in capsys.readouterr().out
    assert fn.load(tmp_path / "data.safetensors").predict_proba(samples["x"]).shape == (200, 2)


def test_export_to_c(model, tmp_path, capsys):
    assert cli.main(["export", str(model[1]), "--to", "c", "--out", str(tmp_path / "net.c")]) == 0
    assert "void net_predict(const float *x, float *y);" in (tmp_path / "net.h").read_text()
    assert str(tmp_path / "net.c") in capsys.readouterr().out


def test_dots_of_a_models_name_stay(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model[1].rename("net.v1.safetensors")
    assert cli.main(["export", "net.v1.safetensors", "--to", "c"]) == 2  # no identifier
    assert cli.main(["export", "net.v1.safetensors", "--to", "c", "--name", "net"]) == 0
    assert "net_predict" in (tmp_path / "net.v1.c").read_text()


def test_export_to_onnx(model, tmp_path, monkeypatch):
    needed("onnx")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", str(model[1]), "--to", "onnx"]) == 0
    again = fn.from_onnx(tmp_path / "small.onnx")
    np.testing.assert_array_equal(again.predict(np.eye(3)), model[0].predict(np.eye(3)))


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["missing.safetensors", "--to", "c"], 1, "No such file"),
        (["damaged.safetensors", "--to", "c"], 2, "damaged.safetensors: not a fastnn model"),
        (["damaged.safetensors"], 2, "--to"),
        (["damaged.safetensors", "--to", "fortran"], 2, "fortran"),
    ],
)
def test_export_refuses(arguments, code, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.safetensors").write_bytes(b"abc")
    assert cli.main(["export", *arguments]) == code
    assert sentence in sentence_of(capsys)
