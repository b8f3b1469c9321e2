# Two commands do everything on a fresh machine:
#   make demo   sets up, runs the echo server, drives it, prints what it did next to socketserver
#   make test   sets up, runs the tests
# PYTHON picks the interpreter, e.g. make test PYTHON=python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = setup.py pyproject.toml $(wildcard gevffi/*.py gevffi/sys/*.py gevffi/sys/csrc/*)

.PHONY: demo test lint bench compliance sanitize test-kqueue test-portable fuzz dist clean

demo: $(VENV)/.installed
	$(BIN)/python -m benchmarks.demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks

# The WebSocket server and client against the Autobahn|Testsuite. Status 3: it cannot run here,
# which it has said; that alone is no failure.
compliance: $(VENV)/.installed
	$(BIN)/python -m compliance server --seconds 300 || [ $$? -eq 3 ]
	$(BIN)/python -m compliance client --seconds 300 || [ $$? -eq 3 ]

# The test suite once more, with the C core under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(VENV)/.installed-test
	$(BIN)/python tests/run_sanitized.py

# All tests over the kqueue poller and libkqueue, which GEVFFI_KQUEUE_PREFIX says where to find.
test-kqueue: $(VENV)/.installed-test
	GEVFFI_POLLER=kqueue $(BIN)/python tests/run_built.py

# All tests over what other systems run, as far as Linux has it too.
test-portable: $(VENV)/.installed-test
	GEVFFI_PORTABLE=1 $(BIN)/python tests/run_built.py

# The C parsers under libFuzzer, FUZZ_SECONDS each; what is found stays in build/fuzz.
FUZZ_SECONDS ?= 60
FUZZ_FLAGS = -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	-DLIBFUZZER -Igevffi/sys/csrc -Itests/c
FUZZ_SOURCES_framing = gevffi/sys/csrc/framing.c
FUZZ_SOURCES_websocket = gevffi/sys/csrc/websocket.c gevffi/sys/csrc/utf8.c
FUZZ_TARGETS = fuzz-framing fuzz-websocket

fuzz: $(FUZZ_TARGETS)

$(FUZZ_TARGETS): fuzz-%:
	mkdir -p build/fuzz/$*
	clang $(FUZZ_FLAGS) tests/c/test_$*_fuzz.c $(FUZZ_SOURCES_$*) -o build/fuzz/fuzz_$*
	build/fuzz/fuzz_$* -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -verbosity=0 \
		-artifact_prefix=build/fuzz/$*- build/fuzz/$*

dist: $(VENV)/.installed-lint
	$(BIN)/pip install --quiet build
	$(BIN)/python -m build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The package is installed in place, so that the tests run what is in the tree; a change to the C
# files or to the build installs it again.
$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test $(VENV)/.installed-bench: $(VENV)/.installed-%: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@

# Types are checked with everything there that the tests and benchmarks import.
$(VENV)/.installed-lint: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[lint,test,bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info gevffi/_ffi.c gevffi/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
