# `make demo` and `make test` do all the set-up they need; a second run does none of it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export TLS_OFFLOAD_TESTING := 1
STAMPS := build/.stamps

# Every file that the native build reads.
SOURCES := $(shell find kernels offload envoy_ext benchmarks/native tests/native -type f \
             \( -name '*.c' -o -name '*.h' -o -name '*.cc' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' \
             -o -name '*.proto' \
             -o -name '*.map' -o -name '*.cmake' -o -name CMakeLists.txt -o -path 'kernels/generate/*.py' \) \
             ! -name '_kernels.c' ! -name '_dataplane.c' ! -name '_testing.c' 2>/dev/null) CMakeLists.txt setup.py

.PHONY: help
help: ## show the targets
	@awk -F ':.*## ' '/^# --- /{gsub(/^# --- | -+$$/, ""); group = $$0} \
	  /^[a-z-]+:.*## /{if (group != shown) printf "\n%s\n", group; shown = group; printf "  make %-12s %s\n", $$1, $$2}' \
	  $(MAKEFILE_LIST)

# --- set-up -----------------------------------------------------------------------------------------------------------

$(STAMPS)/debian: deploy/setup/debian.sh
	@echo '== Debian packages'
	@deploy/setup/debian.sh
	@mkdir -p $(STAMPS) && touch $@

$(VENV)/.stamp: requirements.txt $(STAMPS)/debian
	@echo '== Python packages (into $(VENV))'
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(STAMPS)/native: deploy/setup/boringssl.py deploy/setup/boringssl_build/CMakeLists.txt $(VENV)/.stamp
	@echo '== native libraries (BoringSSL; once per machine)'
	@$(PYTHON) deploy/setup/boringssl.py
	@touch $@

$(STAMPS)/envoy: deploy/setup/envoy.py $(VENV)/.stamp
	@echo '== stock Envoy'
	@$(PYTHON) deploy/setup/envoy.py
	@touch $@

$(STAMPS)/build: $(SOURCES) $(STAMPS)/native
	@echo '== our build: kernels, data plane, Envoy module'
	@flock $(STAMPS)/lock $(PYTHON) setup.py --quiet build_ext --inplace
	@touch $@

# The editable install only has to be done again when the metadata changes: it puts the commands into the environment.
$(STAMPS)/install: pyproject.toml $(VENV)/.stamp | $(STAMPS)/build
	@echo '== the command offload into $(VENV)/bin'
	@flock $(STAMPS)/lock $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: native build setup lock
native: $(STAMPS)/native ## build the native libraries (once per machine)
build: $(STAMPS)/build $(STAMPS)/install ## build kernels, data plane and Envoy module in place
setup: build $(STAMPS)/envoy ## everything that the demo and the tests need

lock: $(VENV)/.stamp ## renew requirements.txt and docs/requirements.txt from the .in files beside them
	@$(PYTHON) -m pip install --quiet uv
	@{ echo "# Every package of the development environment, pinned. Made by 'make lock' from requirements.in; do not edit."; \
	   $(PYTHON) -m uv pip compile --quiet requirements.in --no-emit-index-url --no-emit-find-links --no-header \
	     --python-version 3.11; } > requirements.new && mv requirements.new requirements.txt
	@{ echo "# What builds the site, pinned. Made by 'make lock' from docs/requirements.in; do not edit."; \
	   $(PYTHON) -m uv pip compile --quiet docs/requirements.in --no-emit-index-url --no-emit-find-links --no-header \
	     --python-version 3.11; } > requirements.new && mv requirements.new docs/requirements.txt

# --- use --------------------------------------------------------------------------------------------------------------

.PHONY: demo test test-unit
demo: setup ## real Envoys, real clients, keys only in the daemon; KEEP=1 leaves it running
	@$(PYTHON) -m deploy.demo $(if $(KEEP),--keep)

test: setup ## all tests
	@$(PYTHON) -m pytest --durations=12 $(ARGS)

# Twice as many workers as processors, since many tests wait for a process.
test-unit: build ## tests that need no Envoy, no root and little time, in parallel (about 3 minutes on 2 cores)
	@$(PYTHON) -m pytest -m unit -n $$((2 * $$(nproc))) --dist loadfile -q $(ARGS)

.PHONY: bench
bench: setup ## kernels and handshakes, ours against others, into build/bench; QUICK=1 takes 3 minutes, else about 30
	@mkdir -p build/bench
	@$(PYTHON) -m benchmarks.kernels --json build/bench/kernels.json $(if $(QUICK),--rounds 8)
	@$(PYTHON) -m benchmarks.handshake --json build/bench/handshake.json --report build/bench $(if $(QUICK),--quick)

# --- documents --------------------------------------------------------------------------------------------------------

DOCS_VENV := build/docs/venv
$(STAMPS)/docs: docs/requirements.txt $(VENV)/.stamp
	@echo '== Zensical (into $(DOCS_VENV))'
	@test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@

.PHONY: docs reference
docs: $(STAMPS)/docs ## build the site of all documents into build/site; every link has to lead somewhere
	@$(PYTHON) -m docs.publishing.site --zensical $(DOCS_VENV)/bin/zensical

reference: build ## write the parts of docs/reference and the index of the decisions that come from the code
	@$(PYTHON) -m docs.publishing.reference
	@$(PYTHON) docs/decisions/index.py

# --- longer tests: targets of their own -------------------------------------------------------------------------------

.PHONY: test-asan test-tsan test-fuzz test-long
test-asan: setup ## the C under AddressSanitizer and UndefinedBehaviorSanitizer, about 10 minutes
	@$(PYTHON) tests/kernels/sanitized.py address,undefined
	@$(PYTHON) tests/native/sanitized.py address,undefined
	@$(PYTHON) tests/native/module/sanitized.py address,undefined

test-tsan: setup ## the data plane under ThreadSanitizer
	@$(PYTHON) tests/native/sanitized.py thread
	@$(PYTHON) tests/native/module/sanitized.py thread

test-fuzz: setup ## codec, gRPC front and peers' certificates under libFuzzer, FUZZ_SECONDS each (30)
	@PYTHON=$(PYTHON) tests/native/fuzz/run.sh

test-long: setup ## the tests marked `long`: many more random cases
	@$(PYTHON) -m pytest -m long $(ARGS)

.PHONY: soak
soak: setup ## load and faults in turn for MINUTES (10); memory and descriptors before and after
	@$(PYTHON) -m tests.faults.soak --minutes $(or $(MINUTES),10)

.PHONY: faults
faults: setup ## what faults do to a running mesh; writes docs/operations/faults.md (about 12 minutes)
	@$(PYTHON) -m tests.faults docs/operations/faults.md

.PHONY: test-fresh
test-fresh: setup ## demo, a part of the tests and docs/start/own-envoy.md in a minimal Debian root, as a newcomer would; needs root and debootstrap (about 10 minutes)
	@deploy/setup/debian.sh debootstrap
	@$(PYTHON) -m tests.fresh

.PHONY: test-pages
test-pages: setup ## every command of docs/start/own-envoy.md and systemd.md in a bare Debian root, the second booted by systemd; needs root (about 15 minutes)
	@deploy/setup/debian.sh debootstrap systemd-container
	@$(PYTHON) -m pytest -m 'long or not long' tests/fresh $(ARGS)

.PHONY: conformance
SSLYZE := build/conformance/sslyze
$(STAMPS)/conformance: tests/conformance/sslyze.txt deploy/setup/debian.sh $(VENV)/.stamp
	@echo '== testssl.sh (Debian) and sslyze (into $(SSLYZE))'
	@deploy/setup/debian.sh testssl.sh
	@test -x $(SSLYZE)/bin/python || $(PYTHON) -m venv $(SSLYZE)
	@$(SSLYZE)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/conformance/sslyze.txt
	@touch $@

conformance: setup $(STAMPS)/conformance ## tlslite-ng, sslyze and testssl.sh against our TLS and stock Envoy's; writes docs/operations/conformance.md (5 to 10 minutes, mostly waiting)
	@$(PYTHON) -m tests.conformance docs/operations/conformance.md --sslyze $(SSLYZE)/bin/python

.PHONY: test-ct
CONSTANT_TIME := build/constant-time
test-ct: build ## statistical test that the vector kernels take constant time (about 28 minutes; ALGORITHMS="p256 x25519 ...")
	@cmake -G Ninja -S . -B $(CONSTANT_TIME) -DTESTING_HOOKS=ON -DSECRET_MEMORY_MALLOC=ON \
	  -DPython3_EXECUTABLE=$(CURDIR)/$(PYTHON) > /dev/null
	@cmake --build $(CONSTANT_TIME) --target timing
	@taskset -c $$(($$(nproc) - 1)) $(CONSTANT_TIME)/tests/native/constant_time/timing \
	  --report $(CONSTANT_TIME)/report.txt $(ALGORITHMS)
	@echo 'report: $(CONSTANT_TIME)/report.txt'

# --- checks -----------------------------------------------------------------------------------------------------------

C_FILES := $(shell find kernels offload envoy_ext benchmarks tests -type f \( -name '*.c' -o -name '*.h' -o -name '*.cc' \) \
             ! -name '_kernels.c' ! -name '_dataplane.c' ! -name '_testing.c' 2>/dev/null)
CYTHON_FILES := $(shell find kernels offload tests -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' 2>/dev/null)

.PHONY: lint tidy format
lint: setup ## ruff, mypy, cython-lint, clang-format
	@ruff check .
	@ruff format --check .
	@mypy
	@cython-lint $(CYTHON_FILES)
	@clang-format --dry-run --Werror $(C_FILES)

# Files that the build compiles; those of separate configurations (fuzzing, sanitizers, bounds) are their own.
TIDY_FILES := $(filter-out tests/native/fuzz/% tests/native/bounds/% tests/native/constant_time/% tests/kernels/%, \
                $(filter %.c %.cc,$(C_FILES)))
tidy: setup ## clang-tidy over our C and C++ with the checks of .clang-tidy (about 2 minutes)
	@printf '%s\n' $(TIDY_FILES) | xargs -P $$(nproc) -n 4 clang-tidy --quiet -p build/native

format: $(VENV)/.stamp ## format Python and C
	@ruff format .
	@ruff check --fix-only --quiet .
	@clang-format -i $(C_FILES)

.PHONY: clean
clean: ## remove what the build made (not the caches)
	rm -rf build
	find kernels offload envoy_ext \( -name '*.so' -o -name '*.so.14' -o -name '*_pb2*.py*' -o -name keyload -type f \) -delete
