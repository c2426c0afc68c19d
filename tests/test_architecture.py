"""The rules of ARCHITECTURE.md as tests: who may know whom, what is exported, what may not be called."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastnn
from fastnn import _core

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "fastnn"


def c_files(*rooms: str) -> list[Path]:
    found = sorted(path for room in rooms for path in (CSRC / room).glob("*.[ch]"))
    assert found, f"no C sources in {rooms}"
    return found


def code_of(path: Path) -> str:
    """A C file without its comments."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)


def included(path: Path, pattern: str = r'"([^"]+)"') -> set[str]:
    return set(re.findall(rf"^#include {pattern}", path.read_text(), flags=re.MULTILINE))


def table_rows(first_column: str) -> list[tuple[list[str], str]]:
    """(names in the first column, second column) of the rows of ARCHITECTURE.md's table with this heading."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = re.search(rf"^\| {first_column} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    cells = [line.strip("|").split("|") for line in table[1].splitlines()]
    return [(names_in(subject), objects) for subject, objects in cells]


def names_in(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


# ---- who may know whom: C ----

C_MAY_INCLUDE = {name: set(names_in(others)) for names, others in table_rows("file or folder") for name in names}


def headers_of_its_folder(path: Path) -> set[str]:
    return {other.name for other in path.parent.iterdir() if other.suffix in (".h", ".def")}


@pytest.mark.parametrize("room", sorted(path.name for path in CSRC.iterdir() if path.is_dir()))
def test_c_files_include_what_the_table_allows(room):
    for path in c_files(room):
        name = path.relative_to(CSRC).as_posix()
        allowed = set(C_MAY_INCLUDE.get(name, ()))
        if f"{room}/" in C_MAY_INCLUDE:
            allowed |= C_MAY_INCLUDE[f"{room}/"] | headers_of_its_folder(path)
        else:
            assert name in C_MAY_INCLUDE, f"{name} has no row in ARCHITECTURE.md"
        assert included(path) <= allowed, name


def test_kernels_need_little_of_the_c_library():
    allowed = {"stddef.h", "stdint.h", "string.h", "limits.h", "float.h", "immintrin.h", "arm_neon.h"}
    for path in c_files("kernels"):
        assert included(path, "<([^>]+)>") <= allowed, path.name


def test_c_knows_no_python():
    for path in CSRC.rglob("*.[ch]"):
        assert "Python.h" not in path.read_text(), path.name


# ---- who may know whom: Python ----


def python_may_import() -> dict[str, set[str]]:
    allowed: dict[str, set[str]] = {}
    for names, others in table_rows("module"):
        named = set(names_in(others))
        assert named <= allowed.keys(), f"the row of {names} names a row below it"
        everything = others.strip().startswith("everything above but")
        allowed |= dict.fromkeys(names, allowed.keys() - named if everything else named)
    return allowed


def imported_modules(path: Path) -> Iterator[str]:
    """Modules of this package that a file imports; the package itself is __init__."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                package = path.parent.relative_to(ROOT).parts
                origin = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            names = [f"{origin}.{alias.name}" if origin == "fastnn" else origin for alias in node.names]
        for name in names:
            if name.split(".")[0] == "fastnn":
                module = name.split(".")[1] if "." in name else "__init__"
                is_module = (PACKAGE / module).is_dir() or list(PACKAGE.glob(f"{module}.py*"))
                yield module if is_module else "__init__"


def python_modules() -> dict[str, list[Path]]:
    modules = {path.stem: [path] for path in PACKAGE.glob("*.py")}
    modules |= {path.parent.name: sorted(path.parent.rglob("*.py")) for path in PACKAGE.glob("*/__init__.py")}
    return modules


def test_the_table_has_a_row_for_every_module():
    assert python_may_import().keys() == python_modules().keys() | {"_core"}


@pytest.mark.parametrize("module", sorted(python_modules()))
def test_python_modules_import_what_the_table_allows(module):
    for path in python_modules()[module]:
        assert set(imported_modules(path)) - {module} <= python_may_import()[module], path.name


@pytest.mark.parametrize(
    "path",
    [path for package in ("cli", "export") for path in sorted((PACKAGE / package).glob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_cli_and_export_use_public_names_alone(path):
    assert not re.search(r"\bfn\._(?!_version__)|\b(net|trainer|history|layer)\._", path.read_text())


def test_the_binding_includes_the_two_headers_alone():
    text = (PACKAGE / "_fastnn.pxd").read_text() + (PACKAGE / "_core.pyx").read_text()
    assert set(re.findall(r'cdef extern from [<"]([\w./]+)[>"]', text)) <= {"fastnn.h", "fnn_internal.h"}
    assert "cimport numpy" not in text
    assert 'cdef extern from "' in (PACKAGE / "_fastnn.pxd").read_text()


def arithmetic_in_loops(source: str) -> list[str]:
    """Lines inside a for loop that compute with elements indexed by its variable."""
    found: list[str] = []
    loops: list[tuple[int, str]] = []
    for line in source.splitlines():
        indent = len(line) - len(line.lstrip())
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        loops = [loop for loop in loops if loop[0] < indent]
        for _, variable in loops:
            element = rf"\w\[[^]]*\b{variable}\b[^]]*\]"
            if re.search(rf"{element} *[-+*/]|[-+*/]=? *\w*{element}", line):
                found.append(line.strip())
        if match := re.match(r"\s*for (\w+) in\b", line):
            loops.append((indent, match[1]))
    return found


def test_no_numeric_loop_in_the_binding():
    assert arithmetic_in_loops("for i in range(n):\n    total += x[i] * w[i]\n") == ["total += x[i] * w[i]"]
    assert arithmetic_in_loops("for i in range(n):\n    y[i] += 1\n") == ["y[i] += 1"]
    assert arithmetic_in_loops("for i in range(n):\n    total += x[i]\n") == ["total += x[i]"]
    assert arithmetic_in_loops((PACKAGE / "_core.pyx").read_text()) == []


# ---- what may not be called ----


def test_memory_comes_from_the_allocator_table():
    call = re.compile(r"\b(malloc|calloc|realloc|free|aligned_alloc|posix_memalign|alloca)\s*\(")
    for path in CSRC.rglob("*.[ch]"):
        if path.relative_to(CSRC).as_posix() != "runtime/system.c":
            assert not call.search(code_of(path)), path.name
    assert call.search(code_of(CSRC / "runtime/system.c")), "the pattern finds nothing"


# Products in the reader of model files, and why they fit: of elements within a tensor whose bytes were counted with
# checked arithmetic (check_place in header.c), or of the plan of a net (plan.c), whose arena was.
PRODUCTS_OF_THE_READER = {
    "attachments.c": {"i * sizeof offset"},
    "values.c": {"i * sizeof value"},
    "read.c": {
        "entry->rows * entry->columns",
        "t->rows * FNN_PAD_BYTES",
        "i * FNN_PAD_BYTES",
        "t->columns * size",
        "t->offset * size",
        "i * row",
        "i * t->stride",
        "t->stride * size",
    },
}


def products(source: str) -> set[str]:
    return {
        f"{a} * {b}"
        for a, b in re.findall(r"(?=(?<![\w>.])((?:\w|->|\.)+) \* ((?:sizeof )?(?:\w|->|\.)+))", source)
        if not (a.isdigit() or a.isupper())
    }


def test_sizes_from_a_file_are_multiplied_with_care():
    """A new product in the reader, or an allocation of one, must be checked arithmetic or find its place here."""
    assert products("x = n * sizeof y + a->b * c;") == {"n * sizeof y", "a->b * c"}
    for path in c_files("model"):
        code = code_of(path)
        assert not re.search(r"fnn_allocate\([^;)]*[\w)] [*+] ", code), path.name
        if path.name not in ("write.c", "model.h"):
            assert products(code) == PRODUCTS_OF_THE_READER.get(path.name, set()), path.name


def test_kernels_call_no_libm():
    functions = "exp expm1 exp2 log log1p log2 log10 tanh erf pow sqrt fma fmax fmin floor ceil round rint fabs"
    call = re.compile(rf"\b(__builtin_)?({'|'.join(functions.split())})[fl]?\s*\(")
    instructions = {"__builtin_sqrt(", "__builtin_sqrtf(", "__builtin_fabs(", "__builtin_fabsf("}
    for path in c_files("kernels"):
        calls = {match[0] for match in call.finditer(code_of(path))}
        assert calls <= instructions, path.name


def test_kernel_functions_are_static():
    """A plain `inline` compiled with AVX may be the copy that the linker keeps for every file."""
    for path in c_files("kernels"):
        assert not re.search(r"^(?!static|#define).*\binline\b", code_of(path), flags=re.MULTILINE), path.name


def test_no_flag_that_changes_arithmetic_or_ties_to_this_machine():
    forbidden = ("-ffast-math", "-Ofast", "-funsafe-math", "-march=native", "-mcpu=native")
    for name in ("setup.py", "Makefile", "csrc/build.mk", "csrc/isa.flags", "pyproject.toml", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not [flag for flag in forbidden if flag in text], name


# ---- versions and symbols ----


def test_one_version():
    header = (CSRC / "include/fastnn.h").read_text()
    numbers = [re.search(rf"#define FNN_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH")]
    version = re.search(r'#define FNN_VERSION_STRING "(.+)"', header)[1]
    assert ".".join(numbers) == version
    assert version == _core.version() == fastnn.__version__ == importlib.metadata.version("fastnn-cpu")


def output_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def symbols(kinds: str, text: str) -> set[str]:
    return {match[1] for match in re.finditer(rf" [{kinds}] (\S+)$", text, flags=re.MULTILINE)}


def test_the_extension_exports_its_init_function_alone():
    assert symbols("TDBRVW", output_of("nm", "-D", "--defined-only", _core.__file__)) == {"PyInit__core"}


@pytest.fixture(scope="module")
def library():
    output_of("make", "-s", "lib")
    return str(ROOT / "build/c/libfastnn.a")


@pytest.mark.long
def test_the_library_defines_fnn_names_alone(library):
    names = symbols("TDBRVW", output_of("nm", "-g", "--defined-only", library))
    assert {name for name in names if not name.startswith("fnn_")} == set()
    assert "fnn_predict" in names


@pytest.mark.long
def test_kernel_objects_need_memory_functions_alone(library):
    members = re.split(r"^(\S+\.o):$", output_of("nm", "-u", library), flags=re.MULTILINE)
    kernels = {name: body for name, body in zip(members[1::2], members[2::2], strict=True) if name.startswith("isa_")}
    assert kernels
    allowed = {"memcpy", "memmove", "memset", "_GLOBAL_OFFSET_TABLE_"}
    for name, body in kernels.items():
        assert set(re.findall(r" U (\S+)", body)) <= allowed, name


@pytest.mark.long
def test_avx_stays_in_the_objects_of_its_instruction_set(library):
    text = output_of("objdump", "-d", "--no-show-raw-insn", library)
    if "file format elf64-x86-64" not in text:
        pytest.skip("not an x86-64 library")
    members = re.split(r"^(\S+\.o): +file format.*$", text, flags=re.MULTILINE)
    uses_avx = {
        name
        for name, body in zip(members[1::2], members[2::2], strict=True)
        if re.search(r"%[yz]mm|\tv[a-z]+[sp][sd]\b", body)
    }
    assert uses_avx
    assert {name for name in uses_avx if not name.startswith(("isa_avx2", "isa_avx512"))} == set()
