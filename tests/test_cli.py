"""The command line: options, data files, exit codes, and one whole training."""

import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from optional import needed

import fastnn as fn
from fastnn import _strings, cli, tables
from fastnn.cli import task
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
    assert options.hidden == [256, 256, 256]
    assert options.dtype is None
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


OPTIONS = {
    "train": "data --target --task --test-share --hidden --epochs --batch-size --learning-rate --batch-norm --dropout "
    "--label-smoothing --l2 --clip-norm --patience --seed --dtype --threads --out --quiet",
    "predict": "model data --out --threads",
    "evaluate": "model data --target",
    "inspect": "model",
    "diagnose": "model data --target",
    "export": "model --to --out --name",
    "config": "",
}


def test_help_explains_every_command_and_option(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    commands = re.findall(r"^    (\w+)  +\w", capsys.readouterr().out, flags=re.MULTILINE)
    assert commands == list(OPTIONS)
    for command, options in OPTIONS.items():
        with pytest.raises(SystemExit, match="0"):
            cli.main([command, "--help"])
        text = capsys.readouterr().out
        explained = re.findall(
            r"^  (?:-\w(?: \w+)?, )?(--[\w-]+|\w+)(?:(?: \S+)*\n {20,}| [^\n]*?  +)\S", text, re.MULTILINE
        )
        assert [name for name in explained if name != "--help"] == options.split(), command


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
    assert cli.main(["train", "digits", "--quiet", "--epochs", "20", "--out", str(tmp_path)]) == 0
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
        (["missing.safetensors", "--to", "c"], 2, "No such file"),
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


# ---- tables ----

ROWS = 120


def rows_of_a_table():
    """Numbers, texts with a comma, dates and booleans with gaps; the target depends on each."""
    random = np.random.default_rng(0)
    size = random.normal(size=ROWS)
    city = random.choice(["Wien", "Linz, Nord", "Graz"], ROWS)
    day = np.datetime64("2020-01-01") + random.integers(0, 1000, ROWS)
    flag = random.choice(["true", "false"], ROWS)
    value = 2 * size + (city == "Wien") + (day > np.datetime64("2021-06-01")) + (flag == "true")
    table = {
        "id": [f"user{i}" for i in range(ROWS)],
        "size": [f"{v:.3f}" for v in size],
        "city": city,
        "day": day,
        "flag": flag,
    }
    table = {name: [str(v) for v in column] for name, column in table.items()}
    for place, name in enumerate(("size", "city", "day", "flag")):
        table[name][place::17] = ["" for _ in table[name][place::17]]
    return table | {
        "label": ["high" if v > 1.5 else "low" for v in value],
        "price": [f"{v * 100 + 1000:.2f}" for v in value],
    }


def write_table(path, table):
    lines = [list(table), *zip(*table.values(), strict=True)]
    path.write_text("".join(",".join(f'"{cell}"' if "," in cell else cell for cell in line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    needed("pandas")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train_table(folder):
    def run(table, *options, target="label"):
        write_table(folder / "data.csv", table)
        fast = ("--epochs", "12", "--hidden", "16")
        return cli.main(["train", "data.csv", "--target", target, *fast, *options])

    return run


def read_predictions(folder):
    lines = (folder / "out.csv").read_text().splitlines()
    return lines[0], [line.split(",") for line in lines[1:]]


def features_by_hand(table):
    """What Encoder should make of the table, from the sentences in docs/tables.md."""
    net = fn.load("data.safetensors")
    columns = {column.name: column for column in tables.Encoder.of(net).columns}
    days = [np.datetime64(v).astype(int) if v else columns["day"].fill for v in table["day"]]
    x = [[float(v) if v else columns["size"].fill for v in table["size"]]]
    x += [
        [(v or columns["city"].categories[int(columns["city"].fill)]) == c for v in table["city"]]
        for c in ("Graz", "Linz, Nord", "Wien")
    ]
    x.append(days)
    for length, offset in (("year", None), (7, 3), (1, 0)):
        share = []
        for d in days:
            if length == "year":
                start = np.datetime64(int(np.floor(d)), "D").astype("M8[Y]")
                first, after = (int(y.astype("M8[D]").astype(int)) for y in (start, start + 1))
                share.append((d - first) / (after - first))
            else:
                share.append((d + offset) % length / length)
        x += [np.sin(2 * np.pi * np.array(share)), np.cos(2 * np.pi * np.array(share))]
    x += [
        [(v or columns["flag"].categories[int(columns["flag"].fill)]) == c for v in table["flag"]]
        for c in ("false", "true")
    ]
    return np.array([np.asarray(column, dtype=np.float64) for column in x]).T


def test_a_table_of_classes_from_training_to_prediction(train_table, folder, capsys):
    table = rows_of_a_table()
    del table["price"]
    assert train_table(table, "--epochs", "60") == 0
    output = capsys.readouterr().out
    for words in (
        "120 rows: 86 train, 10 validate, 24 test",
        "target 'label': classification, 2 classes (high, low)",
        "city  category  3 values (Graz, Linz, Nord, Wien); missing: ",
        "day   date ",
        "not used: 'id' is text with 96 different values in 96 rows",
        "epochs 60",
        "model saved in data.safetensors",
    ):
        assert words in output
    assert float(re.search(r"test accuracy ([\d.]+) on 24 samples", output)[1]) > 0.75
    assert cli.main(["predict", "data.safetensors", "data.csv", "-o", "out.csv"]) == 0
    header, rows = read_predictions(folder)
    assert header == "prediction,probability_high,probability_low"
    net = fn.load("data.safetensors")
    expected = net.predict_proba(features_by_hand(table))
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], dtype=np.float32), expected)
    assert [row[0] for row in rows] == [("high", "low")[i] for i in expected.argmax(axis=1)]
    capsys.readouterr()
    assert cli.main(["evaluate", "data.safetensors", "data.csv"]) == 0
    share = np.mean([row[0] == label for row, label in zip(rows, table["label"], strict=True)])
    assert capsys.readouterr().out.startswith(f"accuracy {share:.4f} on 120 samples, cross-entropy ")
    assert cli.main(["diagnose", "data.safetensors", "data.csv"]) == 0
    assert "Dense(16)" in capsys.readouterr().out


def test_a_regression_is_saved_in_the_units_of_its_target(train_table, folder, capsys):
    table = rows_of_a_table()
    del table["label"]
    assert (
        train_table(table, "--epochs", "80", "--batch-size", "16", "--learning-rate", "0.01", "--quiet", target="price")
        == 0
    )
    words = capsys.readouterr().out.replace(",", "").split()
    assert float(words[4]) > 0.5  # R^2
    assert cli.main(["predict", "data.safetensors", "data.csv", "--out", "out.csv"]) == 0
    header, rows = read_predictions(folder)
    assert header == "prediction"
    predicted = np.array([float(row[0]) for row in rows])
    np.testing.assert_array_equal(
        predicted.astype(np.float32), fn.load("data.safetensors").predict(features_by_hand(table))[:, 0]
    )
    price = np.array([float(v) for v in table["price"]])
    capsys.readouterr()
    assert cli.main(["evaluate", "data.safetensors", "data.csv"]) == 0
    mse = float(capsys.readouterr().out.replace(",", "").split()[1])
    assert mse == pytest.approx(np.mean((predicted - price) ** 2), rel=1e-4)
    assert mse < 0.5 * price.var()


def test_the_same_seed_gives_the_same_file_and_another_one_does_not(train_table, folder):
    files = []
    for options in (["--seed", "3", "--threads", "1"], ["--seed", "3", "--threads", "2"], ["--seed", "4"]):
        assert train_table(rows_of_a_table(), "--quiet", "--out", "sub/net.safetensors", *options) == 0
        files.append((folder / "sub/net.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_every_class_is_trained_and_has_its_share_of_the_test(train_table, capsys):
    table = rows_of_a_table()
    table["label"] = ["a"] * 80 + ["b"] * 39 + ["only once"]
    assert train_table(table, "--test-share", "0.5") == 0
    assert "3 classes (a, b, only once)" in capsys.readouterr().out
    table["label"][1::5] = [""] * 24
    assert train_table(table, "--test-share", "0") == 0
    output = capsys.readouterr().out
    assert "96 rows: 86 train, 10 validate, 0 test; 24 row(s) without 'label' left out" in output
    assert "no test samples" in output


def test_a_test_share_that_leaves_nothing_to_validate(train_table, capsys):
    table = {name: column[:10] for name, column in rows_of_a_table().items()}
    assert train_table(table, "--test-share", "0.9", target="price") == 2
    assert "--test-share 0.9 leaves 1 of 10 rows to train and to validate with" in sentence_of(capsys)


@pytest.mark.parametrize("others", [5, 6])
def test_no_class_is_drawn_whole(others):
    target = tables.Target("y", ("a", "b"), np.array([0] * others + [1]), np.ones(others + 1, bool))
    rows = np.arange(others + 1)
    for seed in range(20):
        drawn = task._draw(target, rows, 0.5, np.random.default_rng(seed))
        assert set(target.values[np.setdiff1d(rows, drawn)]) == {0, 1}


def test_the_weights_of_the_best_epoch_are_saved(train_table, capsys):
    options = ("--epochs", "40", "--patience", "40", "--learning-rate", "0.1", "--batch-size", "8")
    assert train_table(rows_of_a_table(), *options, target="price") == 0
    losses = [float(text) for text in re.findall(r"val_loss:? ([-+.\de]+)", capsys.readouterr().out)]
    made = task.task_of_table("data.csv", "price", "auto", 0.2, 0)
    mse = fn.load("data.safetensors").evaluate(*made.validation, loss="mse", metrics=())["loss"]
    assert losses[-1] > 1.1 * min(losses)
    assert mse / made.train[1].var() == pytest.approx(min(losses), rel=1e-2)


def test_statistics_are_those_of_the_rows_that_train(folder):
    write_table(folder / "data.csv", rows_of_a_table())
    made = task.task_of_table("data.csv", "price", "regression", 0.2, 0)
    mean, scale = made.statistics
    size = made.train[0][:, 0]
    assert (mean[0], scale[0]) == pytest.approx((size.mean(), size.std()), rel=1e-12)
    assert size.mean() != pytest.approx(np.concatenate([size, made.test[0][:, 0]]).mean(), rel=1e-6)


def test_mean_and_scale_of_targets_go_into_the_last_layer():
    net = fn.Sequential([fn.Dense(3, "relu"), fn.Dense(2)], 2, dtype="float64", seed=0)
    net.parameters()["1.bias"][...] = 2, -1
    x, mean, scale = np.eye(2), np.array([30.0, 5]), np.array([4.0, 0.5])
    expected = net.predict(x) * scale + mean
    cli.train._predict_in_units(net, mean, scale)
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-14)


def test_columns_and_categories_that_come_later(train_table, folder, capsys):
    table = rows_of_a_table()
    assert train_table(table, "--quiet") == 0
    one = {
        "price": ["1000"],
        "more": ["x"],
        "flag": ["maybe"],
        "city": ["Paris"],
        "size": [""],
        "day": ["2024-02-29 12:00"],
    }
    write_table(folder / "new.csv", one)
    assert cli.main(["predict", "data.safetensors", "new.csv", "-o", "out.csv"]) == 0
    net = fn.load("data.safetensors")
    encoder = tables.Encoder.of(net)
    x = encoder.encode(tables.read("new.csv"))
    assert [v for v, name in zip(x[0], encoder.features, strict=True) if name.startswith(("city=", "flag="))] == [0] * 5
    np.testing.assert_array_equal(
        np.array(read_predictions(folder)[1][0][1:], dtype=np.float32), net.predict_proba(x)[0]
    )
    capsys.readouterr()
    for change, sentence in (
        ({"city": None}, "the table has no column 'city'"),
        ({"size": ["big"]}, "column 'size', row 1: 'big' is not a finite number."),
        ({"size": ["inf"]}, "column 'size', row 1: 'inf' is not a finite number."),
        ({"day": ["tomorrow"]}, "column 'day', row 1: 'tomorrow' is not a date"),
    ):
        write_table(folder / "new.csv", {name: v for name, v in (one | change).items() if v})
        assert cli.main(["predict", "data.safetensors", "new.csv"]) == 2
        assert sentence in sentence_of(capsys)
    write_table(folder / "new.csv", one)
    assert cli.main(["evaluate", "data.safetensors", "new.csv"]) == 2
    assert "no column 'label'" in sentence_of(capsys)
    write_table(folder / "new.csv", one | {"label": ["middle"]})
    assert cli.main(["evaluate", "data.safetensors", "new.csv"]) == 2
    assert "has the class 'middle', but the model knows 'high', 'low'" in sentence_of(capsys)
    assert cli.main(["evaluate", "data.safetensors", "data.csv", "--target", "price"]) == 2
    assert "trained on 'label', not 'price'" in sentence_of(capsys)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"a,y\n", "has no rows"),
        (b"a,y\n1,2\n", "has 1 row(s) with a 'y'; at least 10 are needed"),
        (b"a,why\n1,2\n", "no column 'y'"),
        (b"a,Y\n1,2\n", "no column 'y'. It has 'a', 'Y'"),
        (b"a,y\n1,\n2,\n", "has 0 row(s) with a 'y'"),
        (b"a,y\n" + b"1,x\n2,x\n" * 9, "the target 'y' has 1 class, 'x'"),
        (b"a,y\n" + b"1,u\n1,v\n" * 9, "no column can be used as a feature: 'a' has one value, 1"),
        (b"y\n" + b"u\nv\n" * 9, "no column can be used as a feature: there is none"),
        (b"a,y\n" + b"1,u\ninf,v\n" * 9, "column 'a', row 2: 'inf' is not a finite number"),
        (b"a,y\n" + b"1,u\n2,v\n" * 2, "has 4 row(s) with a 'y'; at least 10 are needed"),
        (b"a,a,y\n1,2,3\n", "more than one column 'a'"),
        (b"a,y\n\xfc,1\n", "is not UTF-8 text"),
        (b"a,y\n1,2,3\n", "the first row has more"),
        (b"\x00\x01\x02", "has no"),
    ],
)
def test_tables_that_cannot_be_used(content, sentence, folder, capsys):
    (folder / "data.csv").write_bytes(content)
    assert cli.main(["train", "data.csv", "--target", "y"]) == 2
    assert sentence in sentence_of(capsys)
    assert not list(folder.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "data.csv"], "--target is needed"),
        (["train", "digits", "--target", "y"], "--target names a column of a table"),
        (["train", "data.csv", "--target", "label", "--test-share", "1"], "--test-share"),
        (["train", "data.csv", "--target", "label", "--out", "folder.safetensors"], "--out: cannot write folder.safe"),
        (["train", ".", "--target", "y"], "cannot read .: Is a directory"),
        (["train", "missing.parquet", "--target", "y"], "cannot read missing.parquet: No such file"),
        (["predict", "missing.safetensors", "data.csv"], "cannot read missing.safetensors: No such file"),
        (["predict", ".", "data.csv"], "cannot read .: "),
        (["predict", "data.csv", "data.csv"], "data.csv: not a fastnn model"),
        (["inspect", "data.csv"], "data.csv: not a fastnn model"),
        (["evaluate", "plain.safetensors", "data.csv"], "--target is needed"),
        (["predict", "plain.safetensors", "data.csv"], "has 7 columns, but the net has 3 inputs"),
        (["predict", "strange.safetensors", "data.csv"], "preprocessing does not fit: 1 names, 0 kinds, 0 fills"),
    ],
)
def test_wrong_usage_of_tables(arguments, sentence, folder, capsys):
    write_table(folder / "data.csv", rows_of_a_table())
    (folder / "folder.safetensors").mkdir()
    net = fn.Sequential([fn.Dense(2)], 3)
    net.save("plain.safetensors")
    net._attachments = _strings.pack("feature_names", ["a"]) | _strings.pack("preprocess.kinds", [])
    net.save("strange.safetensors")
    assert cli.main(arguments) == 2
    assert sentence in sentence_of(capsys)


def test_a_missing_package_is_named(folder, monkeypatch, capsys):
    write_table(folder / "data.csv", rows_of_a_table())
    (folder / "data.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert cli.main(["train", "data.parquet", "--target", "label"]) == 1
    assert "pip install pyarrow" in sentence_of(capsys)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert cli.main(["train", "data.csv", "--target", "label"]) == 1
    assert "pip install 'fastnn-cpu[cli]'" in sentence_of(capsys)


def test_numbers_that_differ_by_less_than_float32_can_hold(train_table, folder, capsys):
    table = rows_of_a_table()
    table["size"] = [f"{10**9 + i % 7}" for i in range(ROWS)]
    assert train_table(table) == 0
    assert fn.load("data.safetensors").dtype == np.float64
    table["size"] = [f"{10**30 + 10**29 * (i % 7)}" for i in range(ROWS)]
    assert train_table(table) == 0
    assert "float64" in capsys.readouterr().out


def test_a_column_in_another_spelling_is_noted(train_table, folder, capsys):
    table = rows_of_a_table()
    assert train_table(table, "--quiet") == 0
    table["flag"] = [v.title() for v in table["flag"]]
    write_table(folder / "data.csv", table)
    for command in ("predict", "evaluate", "diagnose"):
        capsys.readouterr()
        assert cli.main([command, "data.safetensors", "data.csv"]) == 0
        assert capsys.readouterr().err == "fastnn: note: the model knows none of the values of the column 'flag'.\n"


def test_long_names_and_values_keep_the_lines_short(train_table, capsys):
    table = rows_of_a_table()
    table["name " * 100] = table.pop("size")
    table["city"] = [v and v + "x" * 500 for v in table["city"]]
    table["one"] = ["y" * 500] * ROWS
    assert train_table(table) == 0
    assert cli.main(["inspect", "data.safetensors"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 300


def test_an_export_says_what_is_left_to_the_caller(train_table, capsys):
    assert train_table(rows_of_a_table(), "--quiet") == 0
    capsys.readouterr()
    assert cli.main(["export", "data.safetensors", "--to", "c", "--name", "net"]) == 0
    output = capsys.readouterr().out
    assert "city=Graz, city=Linz, Nord, city=Wien" in output
    assert "left to the caller" in output
    assert re.search(r"^  size +number    missing: -?\d", output, re.MULTILINE)
    assert "classes, in this order: high, low" in output


def test_inspect_shows_everything(train_table, capsys):
    assert train_table(rows_of_a_table(), "--quiet") == 0
    capsys.readouterr()
    assert cli.main(["inspect", "data.safetensors"]) == 0
    output = capsys.readouterr().out
    net = fn.load("data.safetensors")
    for name, view in net.parameters().items():
        line = next(line for line in output.splitlines() if line.startswith(f"{name} "))
        assert f"{np.linalg.norm(view.astype(float)):.4g}" in line.split()
    assert "preprocessing: 5 columns, 14 features" in output
    assert "target 'label': classification, 2 classes (high, low)" in output


def test_models_without_preprocessing_take_plain_columns(folder, capsys):
    net = fn.Sequential([fn.Dense(2)], 3, seed=1)
    net.save("plain.safetensors")
    x = np.random.default_rng(0).normal(size=(5, 3)).round(3)
    write_table(folder / "x.csv", {name: [str(v) for v in column] for name, column in zip("abc", x.T, strict=True)})
    np.savez("x.npz", x=x)
    for data in ("x.csv", "x.npz"):
        assert cli.main(["predict", "plain.safetensors", data, "-o", "out.csv"]) == 0
        header, rows = read_predictions(folder)
        assert header == "prediction_0,prediction_1"
        np.testing.assert_array_equal(np.array(rows, dtype=np.float32), net.predict(x))
    (folder / "x.csv").write_text("a,b,c\n1,2,3\n1,,3\n")
    capsys.readouterr()
    assert cli.main(["predict", "plain.safetensors", "x.csv"]) == 2
    assert "column 'b', row 2 has no value" in sentence_of(capsys)


def test_labels_of_arrays_have_their_names(train, samples, tmp_path, capsys):
    assert train(samples | {"y": np.array(["no", "yes"])[samples["y"]]}, "--quiet") == 0
    assert cli.main(["predict", "data.safetensors", "data.npz", "-o", "out.csv"]) == 0
    header, rows = read_predictions(tmp_path)
    assert header == "prediction,probability_no,probability_yes"
    share = np.mean([row[0] == ("no", "yes")[label] for row, label in zip(rows, samples["y"], strict=True)])
    capsys.readouterr()
    assert cli.main(["evaluate", "data.safetensors", "data.npz"]) == 0
    assert f"accuracy {share:.4f} on 200 samples" in capsys.readouterr().out
    np.savez(tmp_path / "numbers.npz", **samples)
    assert cli.main(["evaluate", "data.safetensors", "numbers.npz"]) == 2
    assert "y has the label '0', which is not among the model's classes" in sentence_of(capsys)


def test_ctrl_c_leaves_a_usable_model(folder, capsys):
    write_table(folder / "data.csv", rows_of_a_table())

    def interrupt():
        deadline = time.monotonic() + 60
        while signal.getsignal(signal.SIGINT) is before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    options = ("--epochs", "1000000", "--patience", "1000000", "--hidden", "8", "--quiet")
    assert cli.main(["train", "data.csv", "--target", "label", *options]) == 130
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    captured = capsys.readouterr()
    assert captured.err == "fastnn: error: interrupted\n"
    assert "model saved in data.safetensors" in captured.out
    assert cli.main(["evaluate", "data.safetensors", "data.csv"]) == 0


@pytest.mark.parametrize("moment", ["before the fit", "while it is scored", "while it is saved"])
def test_ctrl_c_around_the_fit_leaves_a_model_too(moment, folder, monkeypatch, capsys):
    def raising(function):
        def raise_and_call(*arguments, **options):
            signal.raise_signal(signal.SIGINT)
            return function(*arguments, **options)

        return raise_and_call

    owner, name = {
        "before the fit": (fn.Trainer, "fit"),
        "while it is scored": (cli.train, "score"),
        "while it is saved": (fn.Sequential, "save"),
    }[moment]
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(owner, name, raising(getattr(owner, name)))
    write_table(folder / "data.csv", rows_of_a_table())
    assert cli.main(["train", "data.csv", "--target", "label", "--epochs", "3", "--hidden", "8"]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    captured = capsys.readouterr()
    assert captured.err == "fastnn: error: interrupted\n"
    assert ("val_loss" in captured.out) == (moment != "before the fit")
    assert tables.Encoder.of(fn.load("data.safetensors")).target == "label"


def test_predictions_that_nobody_reads(train_table, folder):
    assert train_table(rows_of_a_table(), "--quiet") == 0
    command = subprocess.Popen(
        [sys.executable, "-m", "fastnn", "predict", "data.safetensors", "data.csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    command.stdout.close()
    assert command.stderr.read() == ""
    command.stderr.close()
    assert command.wait() == 1
