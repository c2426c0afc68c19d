"""Builds the one extension, fastnn._core: the C engine compiled file by file, then linked behind the Cython binding.

Everything else about the package is in pyproject.toml. Two environment variables count: CC names the compiler, and
FASTNN_SANITIZE=address,undefined builds with those sanitizers. The engine ignores CFLAGS: a -march there would put
instructions into the dispatcher that it has yet to look for.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

INCLUDE_DIRS = [f"csrc/{room}" for room in ("include", "kernels", "runtime", "net", "model")]
SANITIZERS = os.environ.get("FASTNN_SANITIZE", "")
DEBUG_FLAGS = ["-g", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZERS}"] if SANITIZERS else ["-g0"]
ENGINE_FLAGS = [
    *("-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno"),
    *("-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *(f"-I{directory}" for directory in INCLUDE_DIRS),
    *DEBUG_FLAGS,
]


def version():
    header = Path("csrc/include/fastnn.h").read_text(encoding="utf-8")
    return re.search(r'#define FNN_VERSION_STRING "(.+)"', header)[1]


def compiler():
    """CC, else the compiler that built Python, else cc; on macOS with the architecture that ARCHFLAGS asks for."""
    built_with = shlex.split(sysconfig.get_config_var("CC") or "cc")
    default = built_with if shutil.which(built_with[0]) else ["cc"]
    command = shlex.split(os.environ.get("CC", "")) or default
    return command + (shlex.split(os.environ.get("ARCHFLAGS", "")) if sys.platform == "darwin" else [])


def instruction_sets(cc):
    """{name: flags} of csrc/isa.flags for the machine compiled for, as far as this compiler knows the flags."""
    target = subprocess.run([*cc, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    machine = target.split("-")[0].strip().replace("arm64", "aarch64").replace("amd64", "x86_64")
    found = {}
    for line in Path("csrc/isa.flags").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        wanted, name, *flags = line.split()
        probe = [*cc, *flags, "-x", "c", "-fsyntax-only", os.devnull]
        if wanted in ("any", machine) and subprocess.run(probe, stderr=subprocess.DEVNULL).returncode == 0:
            found[name] = flags
    return found


def engine_commands(cc):
    """(source, compile command) of every object of the engine."""
    sets = instruction_sets(cc)
    have = [f"-DFNN_HAVE_{name.upper()}" for name in sets]
    for name, flags in sets.items():
        for bits in (32, 64):
            source = f"csrc/kernels/isa_{name}.c"
            yield source, [*cc, *ENGINE_FLAGS, *flags, f"-DFNN_REAL_BITS={bits}", "-c", source]
    for room in ("runtime", "net", "model"):
        for source in sorted(Path("csrc", room).glob("*.c")):
            yield str(source), [*cc, *ENGINE_FLAGS, *have, "-c", str(source)]


def build_engine(cc, directory):
    """Compile what is out of date, in parallel; returns the objects.

    An object is named after its command: the two element types of a kernel file have their own, and another compiler
    or flag never meets a stale one. Python plays no part in it, so that all interpreters share them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    headers = [path for pattern in ("*.h", "*.def") for path in Path("csrc").rglob(pattern)]
    changed = max(path.stat().st_mtime for path in headers)

    def build(source, command):
        digest = hashlib.sha256(shlex.join(command).encode()).hexdigest()[:16]
        target = directory / f"{Path(source).stem}-{digest}.o"
        if not target.exists() or target.stat().st_mtime <= max(changed, Path(source).stat().st_mtime):
            print(f"compiling {source}", flush=True)
            # Written aside and renamed: an interrupted compiler leaves nothing that looks finished.
            partial = target.with_suffix(f".{os.getpid()}.partial")
            if subprocess.run([*command, "-o", str(partial)]).returncode != 0:
                raise CompileError(f"the compiler refused {source}")
            partial.replace(target)
        return str(target)

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        return list(workers.map(build, *zip(*engine_commands(cc), strict=True)))


class BuildExtension(build_ext):
    def build_extension(self, ext):
        directory = Path(self.get_finalized_command("build").build_base, "engine")
        ext.extra_objects = build_engine(compiler(), directory)
        # Rewritten when the objects are others, be they older: another compiler, a source removed.
        listing = directory / "linked.txt"
        text = "\n".join(ext.extra_objects)
        if not listing.exists() or listing.read_text(encoding="utf-8") != text:
            listing.write_text(text, encoding="utf-8")
        ext.depends = [*ext.depends, *ext.extra_objects, str(listing)]
        super().build_extension(ext)


strip = [] if SANITIZERS or sys.platform == "darwin" else ["-Wl,-s"]
core = Extension(
    "fastnn._core",
    ["fastnn/_core.pyx"],
    include_dirs=INCLUDE_DIRS,
    libraries=["pthread"],
    # -O3 makes the binding larger, not faster; -Os costs a prediction of one row 4 %.
    extra_compile_args=["-O2", "-fvisibility=hidden", "-Wno-sign-compare", *DEBUG_FLAGS],
    extra_link_args=[*DEBUG_FLAGS[-1:], *strip] if SANITIZERS else strip,
)
setup(
    version=version(),
    ext_modules=cythonize([core], build_dir="build/cython", language_level=3),
    cmdclass={"build_ext": BuildExtension},
)
