# The C library and its tests without Python; included by the Makefile in the folder above, from where the paths count.
#   CC            compiler; one for another machine builds that machine's instruction sets (CC=aarch64-linux-gnu-gcc)
#   RUN           what its programs run in (RUN="qemu-aarch64 -L /usr/aarch64-linux-gnu")
#   BUILD         folder of everything that is built
#   ISAS          instruction sets, if not all that are known for the machine: ISAS="baseline avx2" is 790 KB, not 1.3 MB
#   SANITIZE      address,undefined or thread
#   CFLAGS_EXTRA  more compiler flags
#   PREFIX, LIBDIR, DESTDIR  where it is installed, its libraries, and what is put before both (for packages)
BUILD ?= build/c
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib

TARGET := $(shell $(CC) -dumpmachine 2>/dev/null)
MACHINE := $(patsubst arm64,aarch64,$(firstword $(subst -, ,$(TARGET))))
ISAS := $(shell awk '$$1 == "any" || $$1 == "$(MACHINE)" { print $$2 }' csrc/isa.flags)
isa_flags = $(shell awk '$$2 == "$(1)" { $$1 = $$2 = ""; print }' csrc/isa.flags)
tool = $(shell $(CC) -print-prog-name=$(1))

# No -ffunction-sections: the tables of kernels keep all of them, so --gc-sections takes 4 % off a predictor.
OPTIMIZE := $(if $(SANITIZE),-O1 -g -fno-omit-frame-pointer -fsanitize=$(SANITIZE) -fno-sanitize-recover=all,-O3)
C_FLAGS = -std=gnu11 $(OPTIMIZE) -ffp-contract=off -fno-math-errno -fPIC -fvisibility=hidden -pthread -Wall -Wextra \
	$(patsubst %,-Icsrc/%,include kernels runtime net model) \
	$(foreach isa,$(ISAS),-DFNN_HAVE_$(shell echo $(isa) | tr a-z A-Z)) $(CFLAGS_EXTRA)
COMPILE = $(CC) $(C_FLAGS) -MMD -MP

KERNEL_OBJECTS := $(foreach isa,$(ISAS),$(BUILD)/csrc/kernels/isa_$(isa)_f32.o $(BUILD)/csrc/kernels/isa_$(isa)_f64.o)
objects_of = $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(1)))
RUNTIME_OBJECTS := $(call objects_of,csrc/runtime/*.c)
API_OBJECTS := $(RUNTIME_OBJECTS) $(call objects_of,csrc/net/*.c csrc/model/*.c)
LIBRARY_OBJECTS := $(KERNEL_OBJECTS) $(API_OBJECTS)
# Compiled once more with the public functions visible: a plug-in made from the archive shows none of them.
SHARED_OBJECTS := $(KERNEL_OBJECTS) $(patsubst $(BUILD)/%,$(BUILD)/shared/%,$(API_OBJECTS))
TEST_OBJECTS := $(call objects_of,tests/c/main.c tests/c/test_*.c)
ACCESS_OBJECT := $(BUILD)/tests/c/kernel_access.o
FUZZ_OBJECT := $(BUILD)/tests/c/fuzz_model.o
PEAK_OBJECTS := $(foreach isa,$(ISAS),$(BUILD)/benchmarks/c/peak_$(isa).o)
TIMING_OBJECT := $(BUILD)/benchmarks/c/timing.o

version_of = $(shell awk '$$2 == "FNN_$(1)" { gsub("\"", "", $$3); print $$3 }' csrc/include/fastnn.h)
VERSION := $(call version_of,VERSION_STRING)
ABI := $(call version_of,ABI_VERSION)
ifneq ($(findstring darwin,$(TARGET)),)
SHARED := libfastnn.$(VERSION).dylib
SHARED_ABI := libfastnn.$(ABI).dylib
SHARED_LINK := libfastnn.dylib
SHARED_NAME = -dynamiclib -install_name $(LIBDIR)/$(SHARED_ABI)
else
SHARED := libfastnn.so.$(VERSION)
SHARED_ABI := libfastnn.so.$(ABI)
SHARED_LINK := libfastnn.so
SHARED_NAME = -shared -Wl,-soname,$(SHARED_ABI)
endif

.PHONY: lib install uninstall bench-c test-c test-c-long fuzz test-bits test-aarch64 test-kernels-lib bench-lib asan ubsan tsan symbols FORCE
lib: $(BUILD)/libfastnn.a $(BUILD)/$(SHARED) $(BUILD)/fastnn.pc ## Build the C library, static and shared; needs no Python

install: lib ## Install the C library, its header and pkg-config file (PREFIX=/usr/local DESTDIR=)
	mkdir -p "$(DESTDIR)$(PREFIX)/include" "$(DESTDIR)$(LIBDIR)/pkgconfig"
	install -m 644 csrc/include/fastnn.h "$(DESTDIR)$(PREFIX)/include"
	install -m 644 $(BUILD)/libfastnn.a "$(DESTDIR)$(LIBDIR)"
	install -m 755 $(BUILD)/$(SHARED) "$(DESTDIR)$(LIBDIR)"
	ln -sf $(SHARED) "$(DESTDIR)$(LIBDIR)/$(SHARED_ABI)"
	ln -sf $(SHARED_ABI) "$(DESTDIR)$(LIBDIR)/$(SHARED_LINK)"
	install -m 644 $(BUILD)/fastnn.pc "$(DESTDIR)$(LIBDIR)/pkgconfig"

uninstall: ## Remove what make install put there
	rm -f "$(DESTDIR)$(PREFIX)/include/fastnn.h" $(foreach name,libfastnn.a $(SHARED) $(SHARED_ABI) $(SHARED_LINK) \
		pkgconfig/fastnn.pc,"$(DESTDIR)$(LIBDIR)/$(name)")

bench-c: $(BUILD)/predict_latency $(BUILD)/predict $(BUILD)/$(SHARED) ## Print latency and sizes of a predictor in C
	@$(RUN) $<
	@$(call tool,size) -t $(BUILD)/libfastnn.a | awk 'END { print "libfastnn.a: code and constants " $$1 " bytes" }'
	@$(call tool,strip) -o $(BUILD)/predict.stripped $(BUILD)/predict
	@$(call tool,strip) -o $(BUILD)/shared.stripped $(BUILD)/$(SHARED)
	@wc -c < $(BUILD)/predict.stripped | awk '{ print "examples/c/predict with libfastnn.a, stripped: " $$1 " bytes" }'
	@wc -c < $(BUILD)/shared.stripped | awk '{ print "$(SHARED), stripped: " $$1 " bytes" }'

test-c: $(BUILD)/test_c $(BUILD)/fuzz_model ## Test the C library without Python
	$(RUN) $<
	$(RUN) $(BUILD)/fuzz_model replay tests/corpus/*
	$(RUN) $(BUILD)/fuzz_model run $(if $(SANITIZE),15000,50000) 1 tests/corpus/*

test-c-long: $(BUILD)/test_c ## Test a thousand kills and losses of power
	$(RUN) $< durability-long

FUZZ_MUTANTS ?= 1000000
FUZZ_SEED ?= 1
fuzz: ## Load and run FUZZ_MUTANTS mutants of model files under sanitizers (FUZZ_SEED=...)
	$(MAKE) BUILD=$(BUILD)-asan SANITIZE=address,undefined $(BUILD)-asan/fuzz_model
	$(BUILD)-asan/fuzz_model run $(FUZZ_MUTANTS) $(FUZZ_SEED) tests/corpus/*

# The net's suite again where the compiler or the machine is another one; the runtime's takes minutes under emulation.
AARCH64_RUN := qemu-aarch64 -L /usr/aarch64-linux-gnu
test-bits: ## Test that gcc, clang and NEON (under emulation) train to the same bits
	$(MAKE) CC=gcc BUILD=$(BUILD)-gcc $(BUILD)-gcc/test_c
	$(MAKE) CC=clang BUILD=$(BUILD)-clang $(BUILD)-clang/test_c
	$(MAKE) CC=aarch64-linux-gnu-gcc BUILD=$(BUILD)-aarch64 $(BUILD)-aarch64/test_c
	$(BUILD)-clang/test_c net
	$(AARCH64_RUN) $(BUILD)-aarch64/test_c net
	@gcc=$$($(BUILD)-gcc/test_c hash); echo "gcc, best instruction set:" $$gcc; test -n "$$gcc" && \
	for run in "$(BUILD)-clang/test_c hash" "$(AARCH64_RUN) $(BUILD)-aarch64/test_c hash" \
		"env FASTNN_ISA=avx2 $(BUILD)-gcc/test_c hash"; do \
		test "$$gcc" = "$$($$run)" && echo "same bits: $$run" || { echo "other bits: $$run" >&2; exit 1; }; done

# Without the suites of the runtime and of durability, because the emulator may hang where a program with threads forks, and
# without that of training, which takes ten minutes there: test-bits compares its bits on NEON with those on AVX2.
test-aarch64: ## Test the C library on aarch64 (under emulation)
	$(MAKE) CC=aarch64-linux-gnu-gcc BUILD=$(BUILD)-aarch64 $(BUILD)-aarch64/test_c $(BUILD)-aarch64/fuzz_model
	$(AARCH64_RUN) $(BUILD)-aarch64/test_c net api model
	$(AARCH64_RUN) $(BUILD)-aarch64/fuzz_model replay tests/corpus/*
	$(AARCH64_RUN) $(BUILD)-aarch64/fuzz_model run 5000 1 tests/corpus/*

asan ubsan: ## Test the C library under the address and undefined-behaviour sanitizers
	$(MAKE) test-c BUILD=$(BUILD)-asan SANITIZE=address,undefined

# A fork in a program with threads, which is what the pool's tests do, ends it under this sanitizer's default.
tsan: ## Test the C library under the thread sanitizer
	TSAN_OPTIONS="die_after_fork=0 $$TSAN_OPTIONS" $(MAKE) test-c BUILD=$(BUILD)-tsan SANITIZE=thread

test-kernels-lib: $(BUILD)/libfnn_test.so ## Build the library through which the Python tests reach the kernels

bench-lib: $(BUILD)/libfnn_bench.so ## Build the library through which the benchmarks time C

symbols: $(BUILD)/libfastnn.a ## Check that the C library defines nothing but fnn_ names
	@$(call tool,nm) -g --defined-only $< | awk 'NF == 3 && $$3 !~ /^_?fnn_/ { print "not an fnn_ name: " $$3; bad = 1 } \
		END { exit bad }'

$(BUILD)/libfastnn.a: $(LIBRARY_OBJECTS)
	rm -f $@
	$(call tool,ar) rcs $@ $^

$(BUILD)/$(SHARED): $(SHARED_OBJECTS)
	$(CC) $(C_FLAGS) $(SHARED_NAME) $^ -lm -o $@

# Rewritten where PREFIX or LIBDIR is another one.
PC = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' csrc/fastnn.pc.in
$(BUILD)/fastnn.pc: csrc/fastnn.pc.in csrc/include/fastnn.h FORCE
	@mkdir -p $(@D)
	@$(PC) | cmp -s - $@ || $(PC) > $@

$(BUILD)/predict: $(BUILD)/examples/c/predict.o $(BUILD)/libfastnn.a
	$(CC) $(C_FLAGS) $^ -lm -o $@

$(BUILD)/predict_latency: $(BUILD)/benchmarks/c/predict_latency.o $(BUILD)/libfastnn.a
	$(CC) $(C_FLAGS) $^ -lm -o $@

$(BUILD)/libfnn_test.so: $(ACCESS_OBJECT) $(KERNEL_OBJECTS) $(RUNTIME_OBJECTS)
	$(CC) $(C_FLAGS) -shared $^ -o $@

$(BUILD)/libfnn_bench.so: $(TIMING_OBJECT) $(PEAK_OBJECTS) $(BUILD)/libfastnn.a
	$(CC) $(C_FLAGS) -shared $^ -o $@

$(BUILD)/test_c: $(TEST_OBJECTS) $(BUILD)/libfastnn.a
	$(CC) $(C_FLAGS) $^ -lm -o $@

$(BUILD)/fuzz_model: $(FUZZ_OBJECT) $(BUILD)/libfastnn.a
	$(CC) $(C_FLAGS) $^ -lm -o $@

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(COMPILE) -c $< -o $@

$(BUILD)/shared/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(COMPILE) -DFNN_SHARED -c $< -o $@

# $(1) instruction set, $(2) bits of a real number
define kernel_rule
$(BUILD)/csrc/kernels/isa_$(1)_f$(2).o: csrc/kernels/isa_$(1).c csrc/isa.flags $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(COMPILE) $$(call isa_flags,$(1)) -DFNN_REAL_BITS=$(2) -c $$< -o $$@
endef
$(foreach isa,$(ISAS),$(foreach bits,32 64,$(eval $(call kernel_rule,$(isa),$(bits)))))

# The floors may use every instruction: contraction makes the multiply-adds fused ones.
define peak_rule
$(BUILD)/benchmarks/c/peak_$(1).o: benchmarks/c/peak.c csrc/isa.flags $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(COMPILE) $$(call isa_flags,$(1)) -ffp-contract=fast -DFNN_ISA=$(1) -c $$< -o $$@
endef
$(foreach isa,$(ISAS),$(eval $(call peak_rule,$(isa))))

# Rewritten when the compiler or a flag is another one, so that no object of the old ones is linked.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(COMPILE)' | cmp -s - $@ || echo '$(COMPILE)' > $@

-include $(patsubst %.o,%.d,$(LIBRARY_OBJECTS) $(SHARED_OBJECTS) $(TEST_OBJECTS) $(FUZZ_OBJECT) $(ACCESS_OBJECT) $(PEAK_OBJECTS) $(TIMING_OBJECT))
