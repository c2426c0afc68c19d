"""Tables: kinds of columns, what stands in for missing values, features, targets, and what a model file keeps."""

import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import second_reader
from optional import needed

import fastnn as fn
from fastnn import _strings, tables

pd = needed("pandas")

SMALL_NET = [fn.Dense(4, "relu"), fn.Dense(1)]


@pytest.fixture
def table(tmp_path):
    """Write a CSV file and read it."""

    def make(text, encoding="utf-8"):
        path = tmp_path / "data.csv"
        path.write_bytes(text.encode(encoding))
        return tables.read(path)

    return make


def column_of(frame, name):
    columns, unused = tables.find_columns(frame[[name]])
    assert unused == {}
    return columns[0]


def repeated(*values, rows=40):
    return [values[i % len(values)] for i in range(rows)]


# ---- reading ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,x\n2,\n", {"a": ["1", "2"], "b": ["x", None]}),
        ("a;b\n1,5;x\n-2,25;1,234.5\n", {"a": ["1.5", "-2.25"], "b": ["x", "1,234.5"]}),
        ("a;b\n1,5E+03;1,2e\n", {"a": ["1.5E+03"], "b": ["1,2e"]}),
        ('a, "b,c", "d,c"\n1,2,3\n', {"a": ["1"], "b,c": ["2"], "d,c": ["3"]}),
        ("\n \na;b\n1;2\n", {"a": ["1"], "b": ["2"]}),
        ("a\tb\n1\t2\n", {"a": ["1"], "b": ["2"]}),
        ("a|b\n1|2\n", {"a": ["1"], "b": ["2"]}),
        ('a, "b,c;d;e"\n1,"x,y"\n', {"a": ["1"], "b,c;d;e": ["x,y"]}),
        ('a,b\n"two\nlines",2\n', {"a": ["two\nlines"], "b": ["2"]}),
        ("\ufeffa,b\r\n1,?\r\n", {"a": ["1"], "b": [None]}),
        ("a\n1\n", {"a": ["1"]}),
        ("a,b\n1,2\n3\n", {"a": ["1", "3"], "b": ["2", None]}),
    ],
)
def test_a_csv_file_is_read_as_texts(table, text, expected):
    frame = table(text)
    assert {name: [None if pd.isna(v) else v for v in frame[name]] for name in frame.columns} == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,b,a\n1,2,3\n", "more than one column 'a'"),
        ("\n\na,b, a\n1,2,3\n", "more than one column 'a'"),
        ("a;b\n1,234;2\n1,234,567;2\n", "column 'a' has the number '1,234,567', but in a file with semicolons"),
        ("a;b\n1,234;2\n1,234.5;2\n", "column 'a' has the number '1,234.5', but in a file with semicolons"),
        ("a,b\n1,2,3\n", "more than the 2 values"),
        ("a,b\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        ('a,b\n"1,2\n', "EOF inside string"),
    ],
)
def test_what_is_no_table_is_said_in_one_sentence(table, text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        table(text)
    assert "data.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_named(table, encoding):
    with pytest.raises(ValueError, match=r"not UTF-8 text \(it has the byte 0x(fc|ff)\)"):
        table("größe,b\nü,2\n".replace("ö", "o").replace("ß", "s"), encoding)


def test_a_parquet_file(tmp_path):
    needed("pyarrow")
    frame = pd.DataFrame(
        {
            "number": repeated(1, 2, 3),
            "flag": repeated(True, False),
            "gap": pd.array(repeated(1, None, 2), dtype="Int64"),
            "when": pd.to_datetime(repeated("2024-01-01", "2024-01-02 12:00"), format="ISO8601"),
            "day": repeated(np.datetime64("2020-02-29"), None),
            "text": pd.Categorical(repeated("a", "b", None)),
        }
    )
    frame.to_parquet(tmp_path / "data.parquet")
    columns, unused = tables.find_columns(tables.read(tmp_path / "data.parquet"))
    assert [column.kind for column in columns] == ["number", "category", "number", "date", "category"]
    assert unused == {"day": "has one value, 2020-02-29 00:00:00"}
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match="not a Parquet file"):
        tables.read(tmp_path / "bad.parquet")


def test_an_index_with_names_is_columns_of_a_parquet_file(tmp_path):
    needed("pyarrow")
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [4.0, 5, 6], "c": [7, 8, 9]})
    for index, names in ((["a"], ["a", "b", "c"]), (["c", "a"], ["c", "a", "b"])):
        frame.set_index(index).to_parquet(tmp_path / "data.parquet")
        read = tables.read(tmp_path / "data.parquet")
        assert list(read.columns) == names
        pd.testing.assert_frame_equal(read[["a", "b", "c"]], frame)
    frame[frame["a"] > 1].to_parquet(tmp_path / "data.parquet")
    assert list(tables.read(tmp_path / "data.parquet").columns) == ["a", "b", "c"]
    frame.set_index("a", drop=False).to_parquet(tmp_path / "data.parquet")
    with pytest.raises(ValueError, match="more than one column 'a'"):
        tables.read(tmp_path / "data.parquet")


@pytest.mark.parametrize("text", ["NA ", "?  ", " null\t", "nan", "#N/A ", ""])
def test_missing_values_with_spaces_around(table, text):
    frame = table(f"a,b\n1,2\n{text},3\n4,5\n")
    column = column_of(frame, "a")
    assert (column.kind, column.fill) == ("number", 2.5)
    np.testing.assert_array_equal(column.encode(frame["a"])[:, 0], [1, 2.5, 4])
    category = tables.Column("a", "category", 1.0, ("x", "y"))
    np.testing.assert_array_equal(category.encode(pd.Series([text, "x"], dtype=object)), [[0, 1], [1, 0]])


# ---- kinds of columns ----


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2.5", "1e5", ".5"], "number"),
        (["1,234", "12", "1,234,567.5"], "number"),
        (["123456789012345678901234567890", "1", "2"], "number"),
        (["1", "2", "x"], "category"),
        (["1_000", "2"], "category"),
        (["1,23", "4"], "category"),
        (["true", "false"], "category"),
        (["2024-01-31", "1999-12-31", "9999-12-31"], "date"),
        (["2024-01-31 23:59", "2024-01-31T23:59:59.25Z"], "date"),
        (["2024-02-30", "2024-02-28"], "category"),
        (["31.12.2024", "01.01.2025"], "category"),
        (["20240131", "20240201"], "number"),
    ],
)
def test_kinds(values, kind):
    frame = pd.DataFrame({"a": repeated(*values, None)}, dtype=object)
    assert column_of(frame, "a").kind == kind


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([None] * 40, "has no values"),
        (["7"] * 40, "has one value, 7"),
        (["7", None] * 20, "has one value, 7"),
        (["x"] * 40, "has one value, x"),
        ([f"user{i}" for i in range(40)], "is text with 40 different values in 40 rows"),
    ],
)
def test_unused_columns_and_why(values, reason):
    frame = pd.DataFrame({"a": values, "b": repeated("1", "2")}, dtype=object)
    columns, unused = tables.find_columns(frame)
    assert [column.name for column in columns] == ["b"]
    assert unused == {"a": reason}
    with pytest.raises(ValueError, match="no column can be used as a feature: 'a'"):
        tables.find_columns(frame[["a"]])


def test_a_column_without_name_that_counts_the_rows(table):
    frame = table(",b\n" + "".join(f"{i},{i % 3}\n" for i in range(40)))
    columns, unused = tables.find_columns(frame)
    assert [column.name for column in columns] == ["b"]
    assert list(unused.values()) == ["has no name and only counts the rows"]


@pytest.mark.parametrize("text", ["inf", "-inf", "1e400", "1e101"])
def test_infinite_numbers_are_refused(text):
    frame = pd.DataFrame({"a": ["1", "2", text]}, dtype=object)
    with pytest.raises(ValueError, match=rf"column 'a', row 3: '{text}' is not a finite number"):
        tables.find_columns(frame)


def test_fills_are_medians_and_the_most_frequent():
    frame = pd.DataFrame(
        {
            "n": ["1", "2", "10", None] * 10,
            "c": ["b", "a", "b", None] * 10,
            "d": ["1970-01-02", "1970-01-04", "1970-01-04", None] * 10,
        },
        dtype=object,
    )
    columns, _ = tables.find_columns(frame)
    assert [column.fill for column in columns] == [2.0, 1.0, 3.0]
    assert columns[1].categories == ("a", "b")
    with_rows, _ = tables.find_columns(frame, np.flatnonzero(frame["n"].isin(["1", "10"])))
    assert with_rows[0].fill == 5.5


def test_rare_categories_have_no_place_and_the_most_frequent_are_kept():
    values = ["a"] * 500 + ["b"] * 490 + ["rare"] * 9 + ["unique"]
    column = column_of(pd.DataFrame({"a": values}, dtype=object), "a")
    assert column.categories == ("a", "b")
    np.testing.assert_array_equal(
        column.encode(pd.Series(["b", "rare", "new", None])), [[0, 1], [0, 0], [0, 0], [1, 0]]
    )
    many = pd.DataFrame({"a": [f"c{i % 80:02}" for i in range(8000)] + ["c79"]}, dtype=object)
    column = column_of(many, "a")
    assert len(column.categories) == tables.MOST_CATEGORIES
    assert "c79" in column.categories


def test_the_least_rows_of_a_category_and_the_most_different_texts():
    column = column_of(pd.DataFrame({"a": ["a"] * 491 + ["five"] * 5 + ["four"] * 4}, dtype=object), "a")
    assert column.categories == ("a", "five")
    for different, used in ((20, True), (21, False)):
        values = [f"c{i % different:02}" for i in range(40)]
        columns, unused = tables.find_columns(pd.DataFrame({"a": values, "b": repeated("1", "2")}, dtype=object))
        assert ("a" in [column.name for column in columns]) == used == ("a" not in unused)


def test_a_column_without_name_that_does_not_count_is_used():
    frame = pd.DataFrame({"Unnamed: 0": repeated("3", "1", "2"), "counts": [str(i) for i in range(40)]}, dtype=object)
    assert [column.name for column in tables.find_columns(frame)[0]] == ["Unnamed: 0", "counts"]


# ---- features ----


def test_numbers_as_texts_with_commas():
    column = tables.Column("a", "number", -1.0)
    values = column.encode(pd.Series(["1,234", "12,345,678.5", "5", None, " 7 "], dtype=object))
    np.testing.assert_array_equal(values[:, 0], [1234, 12345678.5, 5, -1, 7])


def test_dates_are_days_and_their_place_in_year_week_and_day():
    texts = ["1970-01-01", "2024-07-01 06:00", "2024-07-01T08:00+02:00", "1969-12-31T12:00:00Z", None]
    features = tables.Column("d", "date", 0.0).encode(pd.Series(texts, dtype=object))
    days = np.array([0, 19905.25, 19905.25, -0.5, 0])
    np.testing.assert_array_equal(features[:, 0], days)
    year = np.array([0, (31 + 29 + 31 + 30 + 31 + 30 + 0.25) / 366, (182 + 0.25) / 366, 364.5 / 365, 0])
    week = np.array([3, 0.25, 0.25, 2.5, 3]) / 7  # 1970 began on a Thursday
    for place, share in zip((1, 3, 5), (year, week, days % 1), strict=True):
        np.testing.assert_allclose(features[:, place], np.sin(2 * np.pi * share), atol=1e-12)
        np.testing.assert_allclose(features[:, place + 1], np.cos(2 * np.pi * share), atol=1e-12)


@pytest.mark.parametrize(("kind", "text"), [("number", "abc"), ("number", "1,23"), ("date", "soon"), ("date", "7")])
def test_a_value_of_another_kind_is_named(kind, text):
    series = pd.Series(["", "2024-01-01" if kind == "date" else "1", text], dtype=object)
    with pytest.raises(ValueError, match=f"column 'a', row 3: '{text}' is not a"):
        tables.Column("a", kind, 0.0).encode(series)


def test_other_columns_and_their_order_do_not_matter_but_a_missing_one_does():
    encoder = tables.Encoder(
        (tables.Column("age", "number", 0.0), tables.Column("c", "category", 0.0, ("x",))), "y", None
    )
    frame = pd.DataFrame({"more": ["?"], "c": ["x"], "age": ["3"]}, dtype=object)
    np.testing.assert_array_equal(encoder.encode(frame), [[3, 1]])
    assert encoder.features == ["age", "c=x"]
    with pytest.raises(ValueError, match=r"the table has no column 'age'\. Did you mean 'aged'\?"):
        encoder.encode(frame.rename(columns={"age": "aged"}))
    with pytest.raises(ValueError, match="lacks 2 of the 2 columns that are needed: 'age', 'c'"):
        encoder.encode(frame[["more"]])


def test_columns_of_which_no_value_has_a_place_are_strange():
    columns = (tables.Column("n", "number", 0.0), tables.Column("flag", "category", 0.0, ("false", "true")))
    encoder = tables.Encoder(columns, "y", None)
    for flags, names in (
        (["True", None], ["flag"]),
        (["True", "true"], []),
        ([None, None], []),
    ):
        assert encoder.strange(pd.DataFrame({"n": ["1", "2"], "flag": flags}, dtype=object)) == names


def test_long_texts_are_shown_on_one_short_line():
    assert tables.short("two\nlines") == "two lines"
    assert tables.short("x" * 40) == "x" * 40
    assert tables.short("x" * 41) == "x" * 37 + "..."
    shown = tables.Column("a", "category", 1.0, ("one", "two\n" + "x" * 1000)).describe()
    assert shown == f"2 values (one, two {'x' * 33}...); missing: two {'x' * 33}..."


# ---- targets ----


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["yes", "no"], "auto", ("no", "yes")),
        (["true", "false"], "auto", ("false", "true")),
        (["10", "9", "1"], "auto", ("1", "9", "10")),
        (["1.0", "0", "1"], "auto", ("0", "1")),
        (["9007199254740993", "9007199254740992"], "auto", ("9007199254740992", "9007199254740993")),
        (["1234567890123456789", "7.0", "7"], "auto", ("7", "1234567890123456789")),
        (["0.5", "1.5"], "auto", None),
        ([str(i) for i in range(31)], "auto", None),
        (["0.5", "1.5"], "classification", ("0.5", "1.5")),
        (["1", "2"], "regression", None),
    ],
)
def test_tasks(values, task, classes):
    target = tables.Target.find(pd.DataFrame({"y": repeated(*values, None, rows=256)}, dtype=object), "y", task)
    assert target.classes == classes
    known = [value for value in repeated(*values, None, rows=256) if value is not None]
    assert target.known.sum() == len(known) == len(target.values)
    if classes is None:
        np.testing.assert_array_equal(target.values, [float(value) for value in known])
    else:
        exact = [Decimal(v) if v[0].isdigit() else v for v in known]
        assert [Decimal(classes[i]) if classes[i][0].isdigit() else classes[i] for i in target.values] == exact


@pytest.mark.parametrize(("rows", "classes"), [(50, 10), (49, None), (45, None)])
def test_whole_numbers_are_classes_if_each_has_five_rows_on_average(rows, classes):
    found = tables.Target.find(pd.DataFrame({"y": [str(i % 10) for i in range(rows)]}), "y").classes
    assert (found and len(found)) == classes


@pytest.mark.parametrize(
    ("values", "task", "sentence"),
    [
        ([None] * 9, "auto", "has no values"),
        (["a"] * 9, "auto", "has 1 class, 'a'"),
        (["1"] * 9, "classification", "has 1 class, '1'"),
        ([f"t{i}" for i in range(9)], "auto", "9 different values in 9 rows, too many for classes"),
        (["0.5", "1.5", "2"], "classification", "Use --task regression"),
        (["1", "two"], "regression", "is to be a number, but has the value 'two'"),
        (["1", "inf"], "regression", "but has the value 'inf'"),
    ],
)
def test_targets_that_cannot_be_learned(values, task, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        tables.Target.find(pd.DataFrame({"y": values}, dtype=object), "y", task)


def test_a_wrong_name_of_the_target_says_the_near_one():
    with pytest.raises(ValueError, match=r"has no column 'prise'\. Did you mean 'price'\?"):
        tables.Target.find(pd.DataFrame({"price": ["1"], "b": ["2"]}), "prise")


def test_the_target_of_another_table_has_the_same_classes():
    encoder = tables.Encoder((), "y", ("1", "2"))
    target = encoder.target_of(pd.DataFrame({"y": ["2.0", None, "1"]}, dtype=object))
    np.testing.assert_array_equal(target.values, [1, 0])
    np.testing.assert_array_equal(target.known, [True, False, True])
    with pytest.raises(ValueError, match="has the class '3', but the model knows '1', '2'"):
        encoder.target_of(pd.DataFrame({"y": ["3"]}, dtype=object))


# ---- what a model file keeps ----


def encoder_and_net():
    encoder = tables.Encoder(
        (
            tables.Column("größe", "number", 1.5),
            tables.Column("day", "date", 19000.25),
            tables.Column("colour", "category", 1.0, ("", "red")),
        ),
        "y",
        ("no", "yes"),
    )
    net = fn.Sequential([fn.Dense(3, "relu"), fn.Dense(2)], 10, seed=0)
    encoder.attach(net)
    return encoder, net


def test_what_was_learned_survives_the_file(tmp_path):
    encoder, net = encoder_and_net()
    net.save(tmp_path / "net")
    assert tables.Encoder.of(fn.load(tmp_path / "net")) == encoder
    assert tables.Encoder.of(fn.load(tmp_path / "net").fold().copy()) == encoder
    read = second_reader.read((tmp_path / "net").read_bytes())
    assert read.strings("preprocess.kinds") == ["number", "date", "category"]
    assert read.strings("target_name") == ["y"]
    assert read.strings("preprocess.categories.2") == ["", "red"]


def test_the_golden_file_of_a_table():
    net = fn.load(Path(__file__).parent / "golden/0.1.0-table.safetensors")
    encoder = tables.Encoder.of(net)
    assert encoder.target == "price, €"
    assert [(column.name, column.kind, column.fill) for column in encoder.columns] == [
        ("size", "number", 1.5),
        ("day", "date", 19000.25),
        ("colour", "category", 1.0),
    ]
    frame = pd.DataFrame({"colour": ["red", None], "size": ["2", None], "day": ["1970-01-01", None]}, dtype=object)
    x = encoder.encode(frame)
    np.testing.assert_array_equal(x[:, [0, 1, 8, 9]], [[2, 0, 0, 1], [1.5, 19000.25, 0, 1]])
    assert net.predict(x).shape == (2, 1)


def strings(name, *texts):
    return _strings.pack(name, texts)


NOTHING = np.empty(0)
INCONSISTENT = {
    "no kinds": ({"preprocess.kinds": None}, "names no kinds"),
    "fewer kinds": (strings("preprocess.kinds", "number", "date"), "2 kinds"),
    "fewer names": (strings("feature_names", "a"), "1 names"),
    "no names": ({"feature_names": None}, "0 names"),
    "no fill": ({"preprocess.fill": None}, "0 fills"),
    "a name twice": (strings("feature_names", "a", "b", "a"), "a name stands twice"),
    "no such kind": (strings("preprocess.kinds", "number", "date", "colour"), "of the kind 'colour'"),
    "no target": ({"target_name": None}, "0 names of the target"),
    "two targets": (strings("target_name", "y", "z"), "2 names of the target"),
    "no categories": ({"preprocess.categories.2": None}, "has 0 categories"),
    "other categories": (strings("preprocess.categories.0", "x"), "(number) has 1 categories"),
    "a category twice": (strings("preprocess.categories.2", "x", "x"), "a category twice"),
    "more categories": (strings("preprocess.categories.2", "x", "y", "z"), "11 features, but the net has 10 inputs"),
    "a fill beyond": ({"preprocess.fill": np.array([0.0, 0, 2])}, "fills with category 2"),
    "a fill between": ({"preprocess.fill": np.array([0.0, 0, 0.5])}, "fills with category 0.5"),
    "a negative fill": ({"preprocess.fill": np.array([0.0, 0, -1])}, "fills with category -1"),
    "a day beyond": ({"preprocess.fill": np.array([0.0, 1e9, 0])}, "fills with 1e+09"),
    "a mean": ({"preprocess.mean": np.zeros(3)}, "preprocess.mean has no meaning"),
    "strange categories": (strings("preprocess.categories.x", "x"), "preprocess.categories.x.offsets has no meaning"),
    "three classes": (strings("class_names", "a", "b", "c"), "3 different classes, but its net has 2"),
    "a class twice": (strings("class_names", "a", "a"), "1 different classes"),
    "no classes": ({"class_names": None}, "no classes, but 2 outputs"),
}


def changed(attachments, change):
    """With other tensors in place; None takes a string or an array away."""
    gone = {name for name, value in change.items() if value is None}
    kept = {name: a for name, a in attachments.items() if not {name, name.rpartition(".")[0]} & gone}
    return kept | {name: value for name, value in change.items() if value is not None}


@pytest.mark.parametrize("name", INCONSISTENT)
def test_a_file_that_contradicts_itself_is_one_sentence(name, tmp_path):
    change, sentence = INCONSISTENT[name]
    _, net = encoder_and_net()
    net._attachments = changed(net._attachments, change)
    net.save(tmp_path / "net")
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        tables.Encoder.of(fn.load(tmp_path / "net"))
    assert "\n" not in str(caught.value)


def test_any_mixture_of_attachments_is_read_or_refused():
    """Parts of several models in one file, drawn at random: an encoder that encodes, or ValueError."""
    pools = [encoder_and_net()[1]._attachments]
    pools += [changed(pools[0], change) for change, _ in INCONSISTENT.values()]
    frame = pd.DataFrame(
        {"größe": ["1"], "day": ["2020-01-01"], "colour": ["red"], "a": ["1"], "b": ["2"]}, dtype=object
    )
    random = np.random.default_rng(0)
    read = refused = 0
    for _ in range(600):
        net = encoder_and_net()[1]
        pool = [pools[i] for i in random.integers(len(pools), size=2)]
        stems = sorted({name.removesuffix(".utf8").removesuffix(".offsets") for part in pool for name in part})
        source = {stem: pool[random.random() < 0.3] for stem in stems}
        net._attachments = {
            name: array
            for stem, part in source.items()
            for name, array in part.items()
            if name.removesuffix(".utf8").removesuffix(".offsets") == stem
        }
        try:
            encoder = tables.Encoder.of(net)
        except ValueError:
            refused += 1
            continue
        if encoder is not None:
            assert net.predict(encoder.encode(frame)).shape == (1, 2)
        read += 1
    assert read > 20
    assert refused > 200


def test_a_net_without_table_has_no_encoder():
    net = fn.Sequential(SMALL_NET, 3)
    assert tables.Encoder.of(net) is None
    assert tables.class_names(net) is None
    tables.set_class_names(net, ("no", "yes"))
    assert tables.Encoder.of(net) is None
    assert tables.class_names(net) == ("no", "yes")
