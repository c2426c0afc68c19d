# The verbs of the project. PYTHON, CC and VENV choose the interpreter, the compiler and the virtual environment.
.DEFAULT_GOAL := help
.PHONY: help run dev build test test-long test-isa test-export-aarch64 asan-python bench bench-compare bench-estimators bench-export lint \
	format docs wheel check-wheel clean

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
ifeq ($(origin CC),default)
CC := $(or $(shell for c in cc gcc clang; do command -v $$c >/dev/null && echo $$c && break; done),cc)
endif
export CC

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
C_FILES = $(shell find csrc tests/c benchmarks/c examples -name '*.[ch]')

include csrc/build.mk

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z -]+:.*## / { printf "  %-18s%s\n", $$1, $$2 }' $(MAKEFILE_LIST) | sort

run: build ## Train on the bundled digits, print the accuracy, save the model, draw the curves
	@$(BIN)/fastnn train digits --out build

dev: build $(VENV)/.tools ## Set up everything that a developer needs

# $(call need,command,sentence): stop with the sentence where the command fails.
need = @{ $(1); } >/dev/null 2>&1 || { echo "fastnn: $(2)" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml csrc/include/fastnn.h # the version stands there
	$(call need,$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))',Python 3.11 or newer is needed: install it or name it with PYTHON=...)
	$(call need,$(PYTHON) -c 'import ensurepip; import venv',Python's venv module is missing (Debian: apt install python3-venv))
	$(call need,printf 'int main(void) { return 0; }' | $(CC) -x c - -o /dev/null,no working C compiler: install gcc or clang or name one with CC=... (Debian: apt install gcc libc6-dev))
	$(call need,printf '#include <Python.h>\n' | $(CC) $$($(PYTHON) -c 'import sysconfig; print("-I" + sysconfig.get_path("include"))') -E -,Python's headers are missing (Debian: apt install python3-dev))
	@echo "setting up $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(PIP) -r /dev/stdin
	@$(BIN)/python setup.py -q build_ext --inplace
	@$(PIP) --no-build-isolation -e '.[test,plot]' || { \
		echo "fastnn: no matplotlib: curves will not be drawn" >&2; $(PIP) --no-build-isolation -e '.[test]'; }
	@touch $@

$(VENV)/.tools: $(VENV)/.installed
	@$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

build: $(VENV)/.installed
	@start=$$(date +%s); $(BIN)/python setup.py -q build_ext --inplace; echo "build: $$(($$(date +%s) - start)) s"

test: build ## Run the fast tests
	$(BIN)/python -m pytest -m 'not long'

# TEST_ARGS: further arguments of pytest.
test-long: build ## Run the long tests
	$(BIN)/python -m pytest -m long $(TEST_ARGS)

test-isa: build ## Run the fast tests on every instruction set of this machine
	@for isa in $$($(BIN)/python -c 'from fastnn import _core; print(*_core.available_isas())'); do \
		echo "FASTNN_ISA=$$isa"; FASTNN_ISA=$$isa $(BIN)/python -m pytest -m 'not long' || exit 1; done

EXPORTED := build/export-aarch64
test-export-aarch64: build ## Test exported C on aarch64 (under emulation)
	rm -rf $(EXPORTED)
	$(BIN)/python tests/export_nets.py $(EXPORTED)
	aarch64-linux-gnu-gcc -std=c99 -Wall -Wextra -pedantic -Werror -ffreestanding -O2 $(EXPORTED)/all_mains.c \
		-o $(EXPORTED)/all_mains
	$(AARCH64_RUN) $(EXPORTED)/all_mains

# -P keeps this folder, whose fastnn is the ordinary build, off Python's path. Python itself leaks; a size that no machine
# has is MemoryError. Without test_reliability.py: a process with threads may hang when it forks under this sanitizer.
ASAN_PYTHON = PYTHONPATH=$(CURDIR)/build/asan-python/lib LD_PRELOAD=$$(gcc -print-file-name=libasan.so) \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $(BIN)/python -P
asan-python: $(VENV)/.installed ## Test the Python package under the address and undefined-behaviour sanitizers
	CC=gcc FASTNN_SANITIZE=address,undefined $(BIN)/python setup.py -q build --build-base build/asan-python \
		--build-lib build/asan-python/lib
	@$(ASAN_PYTHON) -c 'import fastnn._core as core; assert "asan-python" in core.__file__, core.__file__'
	$(ASAN_PYTHON) -m pytest --capture=sys -m 'not long' \
		$(patsubst %,tests/test_%.py,data errors fold gradients layers trainer)

# BENCH_ARGS: see `python -m benchmarks run --help`.
bench: $(VENV)/.bench bench-lib test-kernels-lib ## Time everything beside the peers (BENCH_ARGS="--quick --only steps")
	$(BIN)/python -m benchmarks run $(BENCH_ARGS)
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks -o python_files='bench_*.py' \
		--benchmark-columns=min,median

# make bench-compare A=main B=HEAD, or: make bench-compare main HEAD
ifeq ($(firstword $(MAKECMDGOALS)),bench-compare)
A ?= $(word 2,$(MAKECMDGOALS))
B ?= $(word 3,$(MAKECMDGOALS))
$(eval $(wordlist 2,3,$(MAKECMDGOALS)):;@:)
endif
bench-compare: $(VENV)/.bench bench-lib ## Show what a change did, with its noise (A=revision or results folder, B=another)
	@test -n "$(A)" && test -n "$(B)" || { echo "fastnn: name two: make bench-compare A=main B=HEAD" >&2; exit 1; }
	$(BIN)/python -m benchmarks compare $(BENCH_ARGS) "$(A)" "$(B)"

bench-export: build ## Print sizes and latency of an exported 16-64-64-4 net
	$(BIN)/python -m benchmarks.export_c

bench-estimators: $(VENV)/.bench ## Score the estimators and `fastnn train` beside scikit-learn's MLP (DATA=folder of data sets)
	@test -d "$(DATA)" || { echo "fastnn: name the folder of data sets: make bench-estimators DATA=..." >&2; exit 1; }
	$(BIN)/python -m benchmarks.estimators "$(DATA)"

$(VENV)/.bench: $(VENV)/.installed
	@$(PIP) --no-build-isolation -e '.[bench]'
	@touch $@

lint: build $(VENV)/.tools ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" cython-lint fastnn # it looks for pycodestyle there
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)

format: $(VENV)/.tools ## Lay out all sources
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(C_FILES)

# The tutorial's pictures are what its code draws.
docs: build $(VENV)/.docs ## Build the documentation into build/docs; warnings are errors
	@rm -rf build/docs
	@mkdir -p build/figures
	cd build/figures && $(abspath $(BIN))/python ../../tests/pages.py docs/tutorial.md
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/docs
	@echo "documentation: build/docs/index.html"

$(VENV)/.docs: $(VENV)/.installed
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], \
		sep="\n")' | $(PIP) -r /dev/stdin
	@touch $@

wheel: $(VENV)/.installed ## Build sdist and wheel into dist/
	rm -rf dist
	$(BIN)/python -m build

# The repaired wheel is the one that users get: its name says on which systems it runs.
check-wheel: wheel $(VENV)/.release ## Check sdist and wheel as the package index, its users and a release will
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair -w dist/repaired dist/*.whl
	$(BIN)/auditwheel show dist/repaired/*.whl
	FASTNN_WHEEL=$$(echo dist/repaired/*.whl) $(BIN)/python -m pytest -s tests/test_build.py
	$(BIN)/cibuildwheel --platform linux --archs x86_64,aarch64 --print-build-identifiers

$(VENV)/.release: $(VENV)/.installed
	@$(PIP) --no-build-isolation -e '.[release]'
	@touch $@

clean: ## Remove everything that can be made again, the virtual environment too
	rm -rf build dist $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find fastnn tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
	rm -f fastnn/*.so
