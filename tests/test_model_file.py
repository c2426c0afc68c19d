"""Model files and pickles from Python; a second reader and the safetensors package read them too.

The parser is tested in C (tests/c/test_model.c, fuzz_model.c), failures of the disk there too (test_durability.c).
"""

import copy
import errno
import hashlib
import json
import locale
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import second_reader

import fastnn as fn
from fastnn import ModelFileError, ModelVersionError, _core

ROOT = Path(__file__).parent.parent
GOLDEN = sorted((ROOT / "tests/golden").glob("*.safetensors"))
CORPUS = sorted((ROOT / "tests/corpus").glob("*"))
INPUTS = 5


def file_of(net):
    return _core.save_model(net._engine, None, "model", net._attachments)


def bits(array):
    return array.dtype, array.shape, array.tobytes()


# ---- random nets ----

ACTIVATIONS = (
    fn.Identity,
    fn.ReLU,
    lambda: fn.LeakyReLU(0.3),
    lambda: fn.ELU(0.1),
    fn.SELU,
    fn.GELU,
    fn.SiLU,
    fn.Softplus,
    fn.Tanh,
    fn.Sigmoid,
    fn.Softmax,
)
INITS = (
    "zeros",
    "fan_in_uniform",
    "lecun_uniform",
    "lecun_normal",
    "xavier_uniform",
    "xavier_normal",
    "he_uniform",
    "he_normal",
    "orthogonal",
    None,
    fn.initializers.constant(-0.1),
    fn.initializers.uniform(1 / 3),
    fn.initializers.normal(1e-3),
)
PENALTIES = (None, fn.L1(0.1), fn.L1(1e-7, proximal=True), fn.L2(1 / 3), fn.ElasticNet(0.1, 0.7))


def random_net(seed):
    random = np.random.default_rng(seed)

    def one_of(things):
        return things[random.integers(len(things))]

    def flag():
        return bool(random.integers(2))

    def dense(units):
        activation = one_of((None, *ACTIVATIONS))
        return fn.Dense(
            units,
            activation and activation(),
            use_bias=flag(),
            init=one_of(INITS),
            regularizer=one_of(PENALTIES),
            trainable=flag(),
        )

    makers = [
        lambda: dense(int(random.integers(1, 40))),
        lambda: one_of(ACTIVATIONS)(),
        lambda: fn.BatchNorm(one_of((1e-5, 0.1)), one_of((0, 0.9, 1 / 3)), unbiased=flag(), trainable=flag()),
        lambda: fn.Dropout(one_of((0, 0.1, 0.5, 0.99)), one_of(("inverted", "test"))),
        lambda: fn.Scale(float(random.normal())),
    ]
    front = [
        list,
        lambda: [fn.Standardize(random.normal(size=INPUTS), random.uniform(0.5, 2, INPUTS))],
        lambda: [fn.Standardize(0.5, 2.0)],
        lambda: [fn.Standardize()],
    ]
    layers = one_of(front)() + [one_of(makers)() for _ in range(random.integers(1, 8))] + [dense(3)]
    net = fn.Sequential(layers, INPUTS, dtype=one_of(("float32", "float64")), seed=int(random.integers(2**63)) * 2 + 1)
    for name, view in net.parameters().items():
        if name in ("0.mean", "0.scale") and layers[0].scale is not None:
            continue
        if name.endswith("scale") or "running_var" in name:
            view[...] = random.uniform(0.5, 2, view.shape)
        else:
            view[...] = random.normal(scale=0.5, size=view.shape)
    net._engine.link = one_of((None, "identity", "sigmoid", "softmax", "exp"))
    return net


def same_layers(a, b):
    """An activation Identity is none; Standardize holds one number per feature where it was given one for all."""
    if isinstance(a, fn.Standardize) and isinstance(b, fn.Standardize):
        return all(
            np.array_equal(np.broadcast_to(np.float32(a.given(name)), len(b.given(name))), np.float32(b.given(name)))
            for name in ("mean", "scale")
        )
    return a.record() == b.record()


@pytest.mark.filterwarnings("ignore:Not folded")
@pytest.mark.parametrize("tens", range(20))
def test_round_trip(tens, tmp_path):
    x = np.random.default_rng(tens).normal(size=(7, INPUTS))
    for seed in range(10 * tens, 10 * tens + 10):
        net = random_net(seed)
        if seed % 4 == 0:
            net = net.fold()
        path = tmp_path / "net.safetensors"
        net.save(path)
        again = fn.load(path)
        assert all(map(same_layers, net.layers, again.layers))
        assert len(net.layers) == len(again.layers)
        assert (net.seed, net.dtype, net.input_size, net.frozen) == (
            again.seed,
            again.dtype,
            again.input_size,
            again.frozen,
        )
        assert net._engine.link == again._engine.link
        own, others = net.parameters(), again.parameters()
        assert list(own) == list(others)
        assert all(bits(own[name]) == bits(others[name]) for name in own)
        assert path.read_bytes() == file_of(net) == file_of(again)
        outputs = net.predict(x)
        assert bits(outputs) == bits(again.predict(x))
        agrees_with_the_second_reader(path.read_bytes(), own, x, outputs)
        agrees_with_safetensors(path, own)


def agrees_with_the_second_reader(file, parameters, x, outputs):
    read = second_reader.read(file)
    assert read.tensors.keys() == parameters.keys()
    assert all(bits(read.tensors[name]) == bits(np.ascontiguousarray(parameters[name])) for name in parameters)
    expected = second_reader.predict(read, x)
    tolerance = 1e-4 if outputs.dtype == np.float32 else 1e-11
    np.testing.assert_allclose(outputs, expected, rtol=tolerance, atol=tolerance * (1e-3 + np.abs(expected).max()))


def agrees_with_safetensors(path, parameters):
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(path)
    assert tensors.keys() == parameters.keys()
    assert all(bits(tensors[name]) == bits(np.ascontiguousarray(parameters[name])) for name in parameters)


def test_random_nets_have_everything():
    """What the round trip is meant to cover does occur."""
    nets = [random_net(seed) for seed in range(200)]
    records = [record for net in nets for record in net._engine.layers()]
    assert {net.dtype.name for net in nets} == {"float32", "float64"}
    assert {r["kind"] for r in records} == {"dense", "batchnorm", "dropout", "activation", "scale", "standardize"}
    assert {r["activation"] for r in records if r["kind"] == "dense"} == set(second_reader.ACTIVATIONS)
    assert {r["activation"] for r in records if r["kind"] == "activation"} == set(second_reader.ACTIVATIONS)
    assert {r["init"] for r in records} == set(second_reader.INITS)
    assert {r["penalty"][0] for r in records} == set(second_reader.PENALTIES)
    for flag in ("use_bias", "trainable", "unbiased", "test_scaling", "given"):
        assert {r[flag] for r in records} == {False, True}


def test_attachments_survive(tmp_path):
    net = random_net(3)
    names = np.frombuffer("ja\u00fcnein".encode(), np.uint8)
    net._attachments = {
        "class_names.utf8": names,
        "class_names.offsets": np.array([0, 4, len(names)]),
        "preprocess.mean": np.arange(INPUTS, dtype=float),
    }
    path = tmp_path / "net"
    net.save(path)
    again = fn.load(path)
    assert again._attachments.keys() == net._attachments.keys()
    assert all(bits(again._attachments[name]) == bits(array) for name, array in net._attachments.items())
    read = second_reader.read(path.read_bytes())
    assert read.strings("class_names") == ["ja\u00fc", "nein"]
    for other in (again.copy(), pickle.loads(pickle.dumps(again)), copy.deepcopy(again)):
        assert file_of(other) == path.read_bytes()


# ---- files that are not what they should be ----


def parts(file):
    """Metadata without CRCs, entries in their order and the data of each."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    metadata = {k: v for k, v in header.pop("__metadata__").items() if "crc" not in k}
    data = {name: file[8 + length :][slice(*entry["data_offsets"])] for name, entry in header.items()}
    return metadata, header, data


def whole(metadata, entries, data, *, text=lambda header: header, tail=b"", place=True):
    """The file of these parts, its CRCs right, its header changed by `text`."""
    begin = 0
    metadata = dict(metadata)
    for name, entry in entries.items():
        if place:
            entry["data_offsets"] = [begin, begin + len(data[name])]
        begin += len(data[name])
        metadata[f"fastnn.crc.{name}"] = f"{zlib.crc32(data[name]):08x}"
    metadata["fastnn.header_crc"] = "00000000"
    header = text(json.dumps({"__metadata__": metadata, **entries}, ensure_ascii=False).encode())
    header = header.replace(b'"00000000"', b'"%08x"' % zlib.crc32(header))
    return len(header).to_bytes(8, "little") + header + b"".join(data[name] for name in entries) + tail


def dense_file():
    net = fn.Sequential([fn.Standardize(0.5, 2.0), fn.Dense(2, "relu"), fn.BatchNorm()], 3, seed=1)
    net._attachments = {
        "class_names.utf8": np.frombuffer(b"yesno", np.uint8),
        "class_names.offsets": np.array([0, 3, 5]),
        "preprocess.scale": np.array([1.0, 2.0, 3.0]),
    }
    return file_of(net)


def checkpoint_file():
    net = fn.Sequential([fn.Dense(2)], 3, seed=1)
    trainer = fn.Trainer(net, optimizer=fn.Adam(1e-3), loss="mse")
    trainer.train_step(np.ones((4, 3)), np.ones((4, 2)))
    return _core.save_model(net._engine, None, "checkpoint", {"trainer.state": np.frombuffer(b"{}", np.uint8)})


ARCH = "fastnn.arch"


def with_metadata(**values):
    def change(metadata, entries, data):
        for key, value in values.items():
            if value is None:
                del metadata[f"fastnn.{key}"]
            else:
                metadata[f"fastnn.{key}"] = value

    return change


def with_arch(before, after):
    def change(metadata, entries, data):
        assert metadata[ARCH].count(before) == 1, metadata[ARCH]
        metadata[ARCH] = metadata[ARCH].replace(before, after)

    return change


def with_entry(name, **values):
    return lambda metadata, entries, data: entries[name].update(values)


def with_data(name, array):
    def change(metadata, entries, data):
        data[name] = np.asarray(array).tobytes()

    return change


def with_tensor(name, array, dtype):
    def change(metadata, entries, data):
        entries[name] = {"dtype": dtype, "shape": list(np.shape(array))}
        data[name] = np.asarray(array).tobytes()

    return change


def without(name):
    return lambda metadata, entries, data: entries.pop(name)


def renamed(name, other):
    def change(metadata, entries, data):
        entries[other], data[other] = entries.pop(name), data.pop(name)

    return change


# what is done to a file -> what the message must say
MALFORMED = {
    "format 2": (with_metadata(format="2"), "has format 2, fastnn .* reads up to 1"),
    "format 0": (with_metadata(format="0"), "no format 0"),
    "format text": (with_metadata(format="one"), r"'fastnn\.format' is 'one'"),
    "no format": (with_metadata(format=None), "but not a fastnn model"),
    "another kind": (with_metadata(kind="weights"), "unknown value 'weights'"),
    "no kind": (with_metadata(kind=None), "missing"),
    "unknown key": (with_metadata(other="1"), r"'fastnn\.other' is not known"),
    "optimizer of a model": (with_metadata(optimizer="sgd"), r"'fastnn\.optimizer' is not known"),
    "dtype F16": (with_metadata(dtype="F16"), "unknown value 'F16'"),
    "0 inputs": (with_metadata(input_size="0"), "out of its range"),
    "2^31 inputs": (with_metadata(input_size=str(2**31)), "expected an integer"),
    "another number of inputs": (with_metadata(input_size="4"), "the layers need F32 of 4 x"),
    "seed -1": (with_metadata(seed="-1"), "expected an integer"),
    "seed 2^64": (with_metadata(seed=str(2**64)), "expected an integer"),
    "seed 01": (with_metadata(seed="01"), "expected an integer"),
    "frozen 2": (with_metadata(frozen="2"), "expected an integer"),
    "link": (with_metadata(link="tanh"), "unknown value"),
    "value that is no ASCII": (with_metadata(link="\u00fc" * 300), r"unknown value '\?\?"),
    "CRC of nothing": (with_metadata(**{"crc.nothing": "00000001"}), "CRCs for"),
    "no layers": (with_metadata(arch=""), "layer 0: not 'index:kind"),
    "layer index": (with_arch("1:dense", "2:dense"), "layer 1: not 'index:kind"),
    "layer kind": (with_arch("1:dense", "1:conv2d"), "layer 1: not 'index:kind"),
    "attribute missing": (with_arch(",use_bias=1", ""), "attribute use_bias is missing"),
    "attribute added": (with_arch("unbiased=0", "unbiased=0,groups=2"), "attribute trainable is missing"),
    "attribute behind": (with_arch("given=1", "given=1,groups=2"), "attribute that this version does not know"),
    "text behind": (with_arch("2:batchnorm", "2 :batchnorm"), "layer 2: not"),
    "trailing semicolon": (with_arch("unbiased=0,trainable=1)", "unbiased=0,trainable=1);"), "layer 3: not"),
    "0 units": (with_arch("units=2", "units=0"), "out of its range"),
    "units": (with_arch("units=2", "units=3"), "the layers need F32 of 3 x 3"),
    "too many units": (with_arch("units=2", f"units={2**31}"), "units is missing or out of range"),
    "huge units": (with_arch("units=2", f"units={2**31 - 1}"), "the layers need"),
    "activation": (with_arch("activation=relu", "activation=exec"), "activation is missing or out of range"),
    "use_bias 2": (with_arch("use_bias=1", "use_bias=2"), "use_bias is missing or out of range"),
    "eps 0": (with_arch("eps=1e-05", "eps=0"), "out of its range"),
    "eps nan": (with_arch("eps=1e-05", "eps=nan"), "eps is missing or out of range"),
    "eps inf": (with_arch("eps=1e-05", "eps=1e999"), "eps is missing or out of range"),
    "eps hexadecimal": (with_arch("eps=1e-05", "eps=0x1p-3"), "eps is missing or out of range"),
    "eps with a comma": (with_arch("eps=1e-05", "eps=0,5"), "eps is missing or out of range|attribute decay"),
    "eps +1": (with_arch("eps=1e-05", "eps=+1"), "eps is missing or out of range"),
    "eps 1.": (with_arch("eps=1e-05", "eps=1."), "eps is missing or out of range"),
    "eps 01": (with_arch("eps=1e-05", "eps=01"), "eps is missing or out of range"),
    "eps long": (with_arch("eps=1e-05", "eps=0." + 40 * "1"), "eps is missing or out of range"),
    "decay 1": (with_arch("decay=0.9", "decay=1"), "out of its range"),
    "negative penalty": (with_arch("lam=0", "lam=-1"), "out of its range"),
    "standardize inside": (
        with_arch("2:batchnorm(eps=1e-05,decay=0.9,unbiased=0,trainable=1)", "2:standardize(given=0)"),
        "out of its range",
    ),
    "tensor missing": (without("1.bias"), r"'1\.bias' is missing"),
    "tensor renamed": (renamed("1.bias", "1.biases"), r"'1\.bias' is missing"),
    "tensor added": (with_tensor("3.weight", np.ones((2, 2), np.float32), "F32"), r"'3\.weight' is not one of the net"),
    "code added": (with_tensor("code", np.frombuffer(b"import os", np.uint8), "U8"), "'code' is not one of the net"),
    "path as a name": (renamed("class_names.utf8", "../etc/passwd"), "not the JSON"),
    "long name": (renamed("class_names.utf8", "x" * 129), "not the JSON"),
    "empty name": (renamed("class_names.utf8", ""), "not the JSON"),
    "dtype of a tensor": (with_tensor("1.bias", np.ones(2), "F64"), r"'1\.bias' is F64"),
    "unknown dtype": (with_entry("1.bias", dtype="BF16"), "not the JSON"),
    "shape transposed": (with_entry("1.weight", shape=[2, 3]), r"'1\.weight' is F32 of 2 x 3"),
    "rank 1 for 2": (with_entry("1.weight", shape=[6]), r"'1\.weight' is F32 of 6 x 1"),
    "rank 2 for 1": (with_entry("1.bias", shape=[1, 2]), r"'1\.bias' is F32 of 1 x 2"),
    "rank 0": (with_entry("1.bias", shape=[]), "not the JSON"),
    "rank 3": (with_entry("1.bias", shape=[1, 1, 2]), "not the JSON"),
    "dimension 0": (with_entry("1.bias", shape=[0]), "not the JSON"),
    "negative dimension": (with_entry("1.bias", shape=[-2]), "not the JSON"),
    "dimension that is no integer": (with_entry("1.bias", shape=[2.0]), "not the JSON"),
    "dimension 2^31": (with_entry("1.bias", shape=[2**31]), "not the JSON"),
    "dimension 2^64": (with_entry("1.bias", shape=[2**64]), "not the JSON"),
    "product that overflows": (with_entry("1.weight", shape=[2**31 - 1, 2**31 - 1]), "do not suit its shape"),
    "too much data": (with_data("1.bias", np.ones(3, np.float32)), "do not suit its shape"),
    "too little data": (with_data("1.bias", np.ones(1, np.float32)), "do not suit its shape"),
    "entry with more": (with_entry("1.bias", order="F"), "not the JSON"),
    "NaN": (with_data("1.bias", np.float32([1, np.nan])), r"'1\.bias' has the value -?nan at element 1"),
    "infinity": (with_data("1.weight", np.full((3, 2), -np.inf, np.float32)), r"'1\.weight' has the value -inf"),
    "negative variance": (with_data("2.running_var", np.float32([1, -1])), "has the value -1 at element 1"),
    "scale 0": (with_data("0.scale", np.float32([1, 0, 1])), "has the value 0 at element 1"),
    "scale all 0 though given": (with_data("0.scale", np.float32([0, 0, 0])), "has the value 0 at element 0"),
    "scale not normal": (with_data("0.scale", np.float32([1, 1e-40, 1])), "at element 1"),
    "preprocess.scale 0": (with_data("preprocess.scale", [1.0, 0.0, 2.0]), "at element 1"),
    "preprocess.mean NaN": (with_tensor("preprocess.mean", np.array([np.nan]), "F64"), "has the value -?nan"),
    "offsets fall": (with_data("class_names.offsets", [0, 5, 3]), "string 2"),
    "offsets beyond": (with_data("class_names.offsets", [0, 3, 6]), "string 2"),
    "offsets short": (with_data("class_names.offsets", [0, 3, 4]), "ends at byte 4 of 5"),
    "offsets late": (with_data("class_names.offsets", [1, 3, 5]), "string 0"),
    "offsets negative": (with_data("class_names.offsets", [0, -1, 5]), "string 1"),
    "no offsets": (without("class_names.offsets"), "has no offsets"),
    "no UTF-8": (with_data("class_names.utf8", np.frombuffer(b"ye\xff\xfeo", np.uint8)), "string 1"),
    "character cut": (with_data("class_names.utf8", np.frombuffer(b"ye\xc3\xbco", np.uint8)), "string 1"),
    "state of a trainer": (with_tensor("trainer.state", np.ones(2, np.uint8), "U8"), "belongs in a checkpoint"),
    "moments in a model": (
        with_tensor("optimizer.momentum.1.bias", np.ones(2, np.float32), "F32"),
        "not one of the net",
    ),
}
MALFORMED_CHECKPOINTS = {
    "no optimizer": (with_metadata(optimizer=None), "missing"),
    "optimizer": (with_metadata(optimizer="adagrad"), "unknown value"),
    "passes": (with_metadata(passes=str(2**63)), "expected an integer"),
    "updates": (with_metadata(updates="-1"), "expected an integer"),
    "frozen": (with_metadata(frozen="1"), "expected an integer from 0 to 0"),
    "one moment missing": (without("optimizer.momentum.0.bias"), r"'optimizer\.momentum\.0\.bias' is missing"),
    "first moment missing": (without("optimizer.momentum.0.weight"), "is not one of the net|is missing"),
    "second moment negative": (
        with_data("optimizer.second_moment.0.bias", np.float32([1, -1])),
        "has the value -1 at element 1",
    ),
    "moment NaN": (with_data("optimizer.momentum.0.bias", np.float32([np.nan, 1])), "has the value -?nan"),
    "moment of nothing": (
        with_tensor("optimizer.momentum.7.bias", np.ones(2, np.float32), "F32"),
        "not one of the net",
    ),
}


def replaced(before, after):
    def change(header):
        assert before in header
        return header.replace(before, after, 1)

    return change


# what is done to the text of the header
MALFORMED_TEXTS = {
    "space in front": (lambda h: b" " + h, "not the JSON"),
    "text behind": (lambda h: h + b"x", "not the JSON"),
    "zero behind": (lambda h: h + b"\0", "not the JSON"),
    "empty": (lambda h: b"", "not the JSON"),
    "empty object": (lambda h: b"{}", "not the JSON"),
    "list": (lambda h: b"[" + h + b"]", "not the JSON"),
    "escape": (replaced(b'"F32"', b'"\\u0046\\u0033\\u0032"'), "not the JSON"),
    "control character": (replaced(b'"fastnn.kind"', b'"fastnn.kind\t"'), "not the JSON"),
    "no UTF-8": (replaced(b'"fastnn.kind"', b'"fastnn.\xff"'), "not UTF-8"),
    "overlong UTF-8": (replaced(b'"fastnn.kind"', b'"fastnn.\xc0\x80"'), "not UTF-8"),
    "number as metadata": (replaced(b'"fastnn.format": "1"', b'"fastnn.format": 1'), "not the JSON"),
    "nested metadata": (replaced(b'"fastnn.format": "1"', b'"fastnn.format": {"a": "1"}'), "not the JSON"),
    "trailing comma": (lambda h: h[:-1] + b",}", "not the JSON"),
    "missing comma": (replaced(b', "1.bias"', b' "1.bias"'), "not the JSON"),
    "leading zero": (replaced(b'"shape": [3]', b'"shape": [03]'), "not the JSON"),
    "exponent": (replaced(b'"shape": [3]', b'"shape": [3e0]'), "not the JSON"),
    "dtype twice": (replaced(b'"dtype": "F32"', b'"dtype": "F32", "dtype": "F32"'), "not the JSON"),
    "key twice": (
        replaced(b'"fastnn.kind": "model"', b'"fastnn.kind": "model", "fastnn.kind": "model"'),
        "stands twice",
    ),
    "other key twice": (replaced(b'"fastnn.kind"', b'"a": "", "a": "", "fastnn.kind"'), "stands twice"),
    "metadata twice": (lambda h: h[:-1] + b', "__metadata__": {}}', "not the JSON"),
    "CRC of the header missing": (replaced(b"fastnn.header_crc", b"other"), "header_crc' is missing"),
    "CRC of a tensor missing": (replaced(b"fastnn.crc.1.bias", b"crc.1.bias"), r"crc\.1\.bias' is missing"),
    "CRC short": (replaced(b'"00000000"', b'"0000000"'), "is not of 8 digits"),
    "deep": (replaced(b'"shape": [3]', b'"shape": ' + 2000 * b"[" + b"3" + 2000 * b"]"), "not the JSON"),
}


def malformed_files():
    cases = {}
    for table, file in ((MALFORMED, dense_file()), (MALFORMED_CHECKPOINTS, checkpoint_file())):
        for what, (change, says) in table.items():
            changed = parts(file)
            change(*changed)
            cases[what if table is MALFORMED else f"checkpoint: {what}"] = whole(*changed), says
    file = dense_file()
    for what, (change, says) in MALFORMED_TEXTS.items():
        cases[f"header: {what}"] = whole(*parts(file), text=change), says
    cases["a byte behind"] = file + b"\0", "incomplete copy or interrupted download"
    cases["two files"] = file + file, "incomplete copy or interrupted download"
    metadata, entries, data = parts(file)
    entries["1.weight"]["data_offsets"][0] += 4
    cases["gap"] = whole(metadata, entries, data, place=False), "do not suit|begins at byte"
    metadata, entries, data = parts(file)
    first, second = list(entries)[:2]
    entries[second]["data_offsets"] = entries[first]["data_offsets"]
    cases["overlap"] = whole(metadata, entries, data, place=False), "do not suit|begins at byte"
    return cases


MALFORMED_FILES = malformed_files()


def test_the_tables_start_from_good_files():
    for file in (dense_file(), checkpoint_file()):
        assert second_reader.read(whole(*parts(file))).layers
        assert _core.open_model(whole(*parts(file)))
        assert _core.open_model(whole(*parts(file), text=lambda header: header + b" \n"))
        assert _core.open_model(
            whole(*parts(file), text=replaced(b'"fastnn.kind"', b'"other": "\xc3\xbc", "fastnn.kind"'))
        )


@pytest.mark.parametrize("what", MALFORMED_FILES)
def test_malformed_files_are_refused(what):
    file, says = MALFORMED_FILES[what]
    with pytest.raises(ModelFileError, match=says):
        fn.network.load_bytes(file)
    with pytest.raises(second_reader.RefusedError):
        second_reader.read(file)


def test_a_newer_format_is_an_error_of_its_own():
    with pytest.raises(ModelVersionError, match="upgrade fastnn"):
        fn.network.load_bytes(MALFORMED_FILES["format 2"][0])


def test_layers_that_python_refuses(tmp_path):
    changed = parts(file_of(fn.Sequential([fn.Scale(2.0)], 3)))
    changed[0][ARCH] = "0:scale(factor=0)"
    path = tmp_path / "net"
    path.write_bytes(whole(*changed))
    with pytest.raises(
        ModelFileError, match="net: the layer list holds a value out of its range: factor must not be 0"
    ):
        fn.load(path)


def test_damage_is_seen():
    """Every byte of a small file, every truncation; every bit is tested in C."""
    for file in (file_of(fn.Sequential([fn.Dense(3)], 2)), checkpoint_file()):
        for length in range(len(file)):
            with pytest.raises(ModelFileError):
                _core.open_model(file[:length])
        damaged = bytearray(file)
        for place in range(len(file)):
            damaged[place] ^= 1 << place % 8
            with pytest.raises(ModelFileError):
                _core.open_model(damaged)
            damaged[place] = file[place]
        _core.open_model(damaged)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus(path):
    """Both readers say what the name of the file says."""
    file = path.read_bytes()
    if path.name.startswith("accepted"):
        engine, _, _ = _core.open_model(file)
        assert second_reader.read(file).layers
        if engine.input_size < 10**6:
            engine.predict(np.zeros((2, engine.input_size), engine.dtype), n_threads=1)
    else:
        with pytest.raises(ModelFileError):
            _core.open_model(file)
        with pytest.raises(second_reader.RefusedError):
            second_reader.read(file)


@pytest.mark.long
def test_both_readers_agree_on_mutants(tmp_path):
    subprocess.run(["make", "-s", "build/c/fuzz_model"], cwd=ROOT, check=True)
    subprocess.run(["build/c/fuzz_model", "write", tmp_path, "20000", "11"], cwd=ROOT, check=True)
    accepted = 0
    for path in tmp_path.iterdir():
        try:
            second_reader.read(path.read_bytes())
            accepts = True
        except second_reader.RefusedError:
            accepts = False
        assert accepts == path.name.startswith("accepted"), path.name
        accepted += accepts
    assert accepted > 2000


@pytest.mark.long
def test_a_thousand_kills_and_losses_of_power():
    done = subprocess.run(["make", "-s", "test-c-long"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1000 kills" in done.stdout


# ---- golden files: never made anew; every version reads what an earlier one wrote ----


def test_golden_files_are_there():
    assert len(GOLDEN) >= 9
    assert all(path.stat().st_size < 8000 for path in GOLDEN)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_file(path):
    file, record = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    assert hashlib.sha256(file).hexdigest() == record["sha256"], "a golden file is never changed"
    engine, contents, attachments = _core.open_model(file)
    read = second_reader.read(file)
    net = fn.network.load_bytes(file)
    assert contents == read.metadata["fastnn.kind"]
    assert attachments.keys() == read.attachments.keys()
    assert all(bits(attachments[name]) == bits(read.attachments[name]) for name in attachments)
    parameters = net.parameters()
    assert parameters.keys() == read.tensors.keys()
    assert all(bits(np.ascontiguousarray(parameters[name])) == bits(read.tensors[name]) for name in parameters)
    moments = {
        f"optimizer.{buffer}.{name}": view
        for index, (name, _, trainable, _) in enumerate(engine.tensors())
        if trainable and contents == "checkpoint"
        for buffer, view in zip(buffers_of(read), engine.moments(index), strict=True)
    }
    assert moments.keys() == read.moments.keys()
    assert all(bits(np.ascontiguousarray(moments[name])) == bits(read.moments[name]) for name in moments)
    x = np.array([[float.fromhex(value) for value in row] for row in record["x"]])
    if record["outputs"] is None:
        with pytest.raises(ValueError, match="has no statistics yet"):
            net.predict(x)
        return
    expected = np.array([[float.fromhex(value) for value in row] for row in record["outputs"]], net.dtype)
    np.testing.assert_array_max_ulp(net.predict(x), expected, maxulp=4)
    agrees_with_the_second_reader(file, parameters, x, net.predict(x))


def buffers_of(read):
    return [
        b for b in ("momentum", "second_moment") if any(name.startswith(f"optimizer.{b}.") for name in read.moments)
    ]


# ---- paths ----


def saved(path, seed=0):
    fn.Sequential([fn.Dense(3)], 2, seed=seed).save(path)
    return path


def test_kinds_of_paths(tmp_path, monkeypatch):
    path = saved(tmp_path / "n\u00e4t.safetensors")
    assert fn.load(path).seed == fn.load(str(path)).seed == fn.load(os.fsencode(path)).seed == 0
    monkeypatch.chdir(tmp_path)
    fn.Sequential([fn.Dense(3)], 2, seed=1).save("plain")  # no slash: the folder to sync is this one
    fn.Sequential([fn.Dense(3)], 2, seed=2).save(b"bytes")
    assert (fn.load("plain").seed, fn.load(b"bytes").seed) == (1, 2)
    for wrong in (None, 3, [path]):
        with pytest.raises(TypeError):
            fn.load(wrong)
        with pytest.raises(TypeError):
            fn.Sequential([fn.Dense(3)], 2).save(wrong)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "plain", "bytes"}


def test_a_path_with_a_null_byte(tmp_path):
    """C would see another path: the one before it."""
    path = saved(tmp_path / "net")
    with pytest.raises(ValueError, match="null byte"):
        fn.load(f"{path}\0.txt")
    with pytest.raises(ValueError, match="null byte"):
        fn.load(path).save(f"{path}\0.txt")


def special_files(folder):
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "empty").touch()
    (folder / "three").write_bytes(b"abc")
    (folder / "pickle").write_bytes(pickle.dumps({"weights": [1.0]}))
    (folder / "old pickle").write_bytes(pickle.dumps({"weights": [1.0]}, protocol=0))
    np.savez(folder / "arrays.npz", weights=np.ones(3))
    (folder / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with (folder / "sparse").open("wb") as file:
        file.truncate(2**40)
    huge = whole({"other": "x"}, {"weight": {"dtype": "U8", "shape": [2**31 - 1]}}, {"weight": b""})
    (folder / "huge").write_bytes(huge.replace(b"[0, 0]", b"[0, 2147483647]"))


LOADS = {
    "fifo": (ModelFileError, "fifo: not a regular file"),
    "folder": (IsADirectoryError, "folder"),
    "empty": (ModelFileError, "empty: not a fastnn model: the file has 0 bytes"),
    "three": (ModelFileError, "the file has 3 bytes"),
    "pickle": (ModelFileError, "looks like a pickle; fastnn never unpickles"),
    "old pickle": (ModelFileError, "not a fastnn model"),
    "arrays.npz": (ModelFileError, "looks like a zip archive"),
    "keras.h5": (ModelFileError, "looks like HDF5"),
    "sparse": (ModelFileError, "not the JSON"),
    "huge": (ModelFileError, "."),
    "missing": (FileNotFoundError, "missing"),
    "three/below": (NotADirectoryError, "below"),
    "x" * 300: (OSError, "too long"),
    "/dev/zero": (ModelFileError, "not a regular file"),
    "/dev/null": (ModelFileError, "not a regular file"),
}


@pytest.mark.parametrize("name", LOADS)
def test_loading_what_is_no_model(name, tmp_path):
    special_files(tmp_path)
    error, says = LOADS[name]
    with pytest.raises(error, match=says) as caught:
        fn.load(tmp_path / name)
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(tmp_path / name)
        assert caught.value.errno


def test_a_large_file_of_another_kind_is_not_read(tmp_path):
    """A header is refused before memory for the data is asked for."""
    path = tmp_path / "other.safetensors"
    header = b'{"weight": {"dtype": "U8", "shape": [2000000000], "data_offsets": [0, 2000000000]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + 2_000_000_000)  # a hole
    code = (
        "import resource, sys, fastnn as fn\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try:\n    fn.load(sys.argv[1])\n"
        "except fn.ModelFileError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=ROOT)
    assert "a safetensors file, but not a fastnn model" in done.stdout, done.stderr


def test_where_a_file_cannot_be_saved(tmp_path):
    net = fn.Sequential([fn.Dense(3)], 2)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/null")
    for name, number in {
        "folder": errno.EISDIR,
        "fifo": errno.EINVAL,
        "link": errno.EINVAL,
        "missing/net": errno.ENOENT,
        "missing/": errno.ENOENT,
        "file/net": errno.ENOTDIR,
        "x" * 300: errno.ENAMETOOLONG,
        "y/" * 3000: errno.ENAMETOOLONG,
    }.items():
        with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
            net.save(f"{tmp_path}/{name}")
        assert (caught.value.errno, caught.value.filename) == (number, f"{tmp_path}/{name}")
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        net.save("/dev/null")
    with pytest.raises(FileNotFoundError):
        net.save("")
    assert {p.name for p in tmp_path.iterdir()} == {"folder", "file", "fifo", "link"}


def test_longest_names(tmp_path):
    """A name of 255 bytes is replaced like any other."""
    path = saved(tmp_path / ("n" * 255))
    assert fn.load(saved(path, seed=3)).seed == 3


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    target = saved(tmp_path / "target")
    before = target.read_bytes()
    (tmp_path / "link").symlink_to(target)
    assert fn.load(tmp_path / "link").seed == 0
    saved(tmp_path / "link", seed=5)
    assert not (tmp_path / "link").is_symlink()
    assert target.read_bytes() == before
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert fn.load(saved(tmp_path / "dangling", seed=6)).seed == 6
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_permissions_do_not_grow(tmp_path, mode):
    path = saved(tmp_path / "net")
    path.chmod(mode)
    saved(path, seed=1)
    assert path.stat().st_mode & 0o777 == mode & ~umask()
    assert fn.load(path).seed == 1


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_files_that_killed_processes_left(tmp_path):
    """In a container every process may have the same number: their names do not run out."""
    for i in range(200):
        (tmp_path / f".fastnn-{os.getpid()}-{i}.tmp").touch()
    assert fn.load(saved(tmp_path / "net", seed=1)).seed == 1


# ---- failing calls ----


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_errors_of_the_disk_are_os_errors(tmp_path, number):
    path, net = saved(tmp_path / "net", seed=1), fn.Sequential([fn.Dense(3)], 2, seed=2)
    failures = 0
    for call in range(1, 30):
        for action in (lambda: net.save(path), lambda: fn.load(path)):
            saved(path, seed=1)
            _core._fail_io(call, False, number)
            try:
                action()
                error = None
            except OSError as caught:
                error = caught
            finally:
                _core._fail_io(0)
            if error:
                failures += 1
                assert (error.errno, error.filename, error.strerror) == (number, str(path), os.strerror(number))
            assert fn.load(path).seed in (1, 2)
            assert list(tmp_path.iterdir()) == [path]
    assert failures > 6


def test_interruptions_and_short_writes_are_no_errors(tmp_path):
    path, net = tmp_path / "net", fn.Sequential([fn.Dense(300)], 200, seed=2)
    for number in (errno.EINTR, 0):
        for call in range(1, 30):
            try:
                _core._fail_io(call, False, number)
                net.save(path)
                _core._fail_io(call, False, number)
                assert fn.load(path).seed == 2
            finally:
                _core._fail_io(0)


def test_no_memory_is_a_memory_error(tmp_path):
    path, net = saved(tmp_path / "net"), fn.Sequential([fn.Dense(3)], 2)
    actions = (
        lambda: net.save(path),
        lambda: fn.load(path),
        lambda: pickle.dumps(net),
        lambda: fn.network.load_bytes(path.read_bytes()),
    )
    for action in actions:
        failures = 0
        for call in range(1, 60):
            _core._fail_allocation(call)
            try:
                action()
            except MemoryError:
                failures += 1
            finally:
                _core._fail_allocation(0)
            assert fn.load(path).seed == 0
        assert failures >= 2


def test_saving_while_another_thread_trains():
    net = fn.Sequential([fn.Dense(64), fn.Dense(3)], 20)
    x, y = np.ones((400, 20)), np.zeros(400, int)
    begun, stop = threading.Event(), threading.Event()

    def epoch_ended(epoch, logs):
        begun.set()

    trainer = fn.Trainer(net, batch_size=10)
    thread = threading.Thread(
        target=lambda: trainer.fit(x, y, epochs=10**6, verbose=0, callbacks=[epoch_ended, lambda *_: stop_it(trainer)])
    )

    def stop_it(trainer):
        if stop.is_set():
            trainer.request_stop()

    def pickle_often():
        for _ in range(10000):
            pickle.dumps(net)

    thread.start()
    begun.wait()
    try:
        with pytest.raises(RuntimeError, match="train"):
            pickle_often()
    finally:
        stop.set()
        thread.join()
    assert len(pickle.dumps(net)) > 1000


# ---- pickles ----


def test_pickles_and_copies():
    for seed in (1, 4, 5):
        net = random_net(seed)
        x = np.ones((3, INPUTS))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(net, protocol=protocol))
            assert file_of(again) == file_of(net)
            assert bits(again.predict(x)) == bits(net.predict(x))
        assert file_of(copy.copy(net)) == file_of(copy.deepcopy(net)) == file_of(net)
    folded = random_net(0).fold()
    assert pickle.loads(pickle.dumps(folded)).frozen


def test_damaged_pickles():
    """What stands in a pickle is checked like any file; it is never a path."""
    net = fn.Sequential([fn.Dense(3)], 2)
    pickled, file = pickle.dumps(net), file_of(net)
    start = pickled.index(file)
    for place in range(start, start + len(file), 7):
        damaged = bytearray(pickled)
        damaged[place] ^= 4
        with pytest.raises(ModelFileError):
            pickle.loads(bytes(damaged))
    for wrong in ("/etc/passwd", 7, None, np.ones(3)):
        with pytest.raises(ModelFileError, match="expected the bytes of a model file"):
            fn.network.load_bytes(wrong)
    assert fn.network.load_bytes(bytearray(file)).seed == fn.network.load_bytes(memoryview(file)).seed == 0


def predict_ones(net):
    return net.predict(np.ones((2, INPUTS)))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_nets_go_to_other_processes(method):
    net = random_net(2)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert bits(pool.apply(predict_ones, (net,))) == bits(predict_ones(net))
        assert file_of(pool.apply(copy.copy, (net,))) == file_of(net)


# ---- what is not in a file ----


def test_no_training_data_in_a_file(tmp_path):
    """A pattern of the features, the targets and the weights of rows is in no file, pickle or checkpoint."""
    for dtype in ("float32", "float64"):
        marker = 1234.5678
        x = np.random.default_rng(0).normal(size=(30, INPUTS))
        x[3], x[17, 2] = marker, marker
        y = np.full((30, 2), 765.4321)
        net = fn.Sequential([fn.Dense(4, "tanh"), fn.BatchNorm(), fn.Dense(2)], INPUTS, dtype=dtype)
        fn.Trainer(net, loss="mse", optimizer=fn.Adam(1e-6), batch_size=10).fit(
            x, y, epochs=2, verbose=0, sample_weight=np.full(30, 3.14159265)
        )
        net.save(tmp_path / "net")
        checkpoint = _core.save_model(net._engine, None, "checkpoint", {})
        files = [(tmp_path / "net").read_bytes(), pickle.dumps(net), checkpoint]
        for value in (marker, 765.4321, 3.14159265):
            for kind in (np.float32, np.float64):
                assert not [file for file in files if kind(value).tobytes() in file]
        assert str(marker).encode() not in files[0]


def test_nothing_of_the_machine_in_a_file(tmp_path):
    """The same net gives the same bytes anywhere, at any time."""
    code = "import sys, fastnn as fn; fn.Sequential([fn.Dense(3)], 2).save(sys.argv[1])"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        environment = {**os.environ, "USER": name, "HOME": str(tmp_path / name), "TZ": name}
        subprocess.run([sys.executable, "-c", code, tmp_path / name / "net"], check=True, cwd=ROOT, env=environment)
    file = (tmp_path / "a/net").read_bytes()
    assert file == (tmp_path / "b/net").read_bytes() == file_of(fn.Sequential([fn.Dense(3)], 2))


# ---- locale ----


def test_a_decimal_comma_changes_nothing(tmp_path):
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")], capture_output=True, text=True
    )
    if not (tmp_path / "de_DE.UTF-8/LC_NUMERIC").exists():
        pytest.skip(f"no sources of locales: {made.stderr}")
    net = fn.Sequential([fn.Dense(3, regularizer=fn.L2(1 / 3)), fn.BatchNorm(1e-3), fn.Dropout(0.1)], 2)
    net.save(tmp_path / "here")
    code = (
        "import locale, sys, fastnn as fn\n"
        "locale.setlocale(locale.LC_ALL, 'de_DE.UTF-8')\n"
        "assert locale.localeconv()['decimal_point'] == ','\n"
        "net = fn.load(sys.argv[1])\n"
        "assert net.layers[0].regularizer.lam == 1 / 3\n"
        "net.save(sys.argv[2])\n"
    )
    environment = {**os.environ, "LOCPATH": str(tmp_path)}
    command = [sys.executable, "-c", code, tmp_path / "here", tmp_path / "there"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
    assert locale.localeconv()["decimal_point"] == "."
