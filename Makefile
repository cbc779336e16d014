# `make` alone lists every target. Each does all its own set-up and says what it does.
SHELL      := /bin/bash
PYTHON     ?= python3
VENV       := .venv
BIN        := $(VENV)/bin
PROGRAMS   := src/wiremeter/programs
BPF_HEADERS := $(wildcard bpf/*.h bpf/lib/*.h bpf/kernel/*.h)
HOST_SOURCES := src/wiremeter/datapath/host_build.py src/wiremeter/names/library_build.py $(wildcard bpf/host/* bpf/names/* bpf/lib/*.h) bpf/records.h
PYTHON_SOURCES := src tests benchmarks scripts setup.py
C_SOURCES  := $(wildcard bpf/*.c bpf/*.h bpf/lib/*.h bpf/kernel/*.h bpf/host/*.[ch] bpf/names/*.[ch] benchmarks/*.c tests/fuzz/*.[ch] tests/unit/names/*.c) src/wiremeter/libbpf/shim.c src/wiremeter/isolation/seal.c src/wiremeter/reports/json_rows.c
WEB        := src/wiremeter/server/web/built/index.html
WEB_SOURCES := $(filter-out web/node_modules/%,$(wildcard web/* web/src/* web/src/*/*))
# Node.js comes by pip, so that every machine builds the page with the same one.
NPM        := cd web && PATH="$(abspath $(BIN)):$$PATH" npm
# CLANG=... chooses the compiler; the newest there is unless given, and 14 suffices.
COMPILE_BPF := scripts/compile-bpf

FUZZ_SECONDS ?= 600
RUNS ?= 5000
MESSAGES ?= 300000
SOAK_SECONDS ?= 1800

# Tests that share nothing run in so many processes; one more than CPUs, since some of them wait.
JOBS ?= $(shell echo $$(($$(nproc) + 1)))
PARALLEL := -n $(JOBS) --dist worksteal

.PHONY: help run root test check build web screenshots lint format bench compare accuracy kernels soak fuzz fuzz-cli differential docs man release release-test deb setup setup-test setup-compare setup-kernels setup-release setup-deb setup-screenshots clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## *' '{printf "  make %-12s %s\n", $$1, $$2}'

run: root build  ## meter the devices of the default route: live table here, /metrics on 127.0.0.1:10464, a server on :10465 (root)
	$(BIN)/wiremeter up --listen 127.0.0.1:10464

root:
	@test "$$(id -u)" = 0 || { echo "metering needs root: sudo make run" >&2; exit 1; }

test: setup-test build $(WEB) build/generator.bpf.o $(VENV)/.dev  ## everything that must hold: lint, types, unit, captures, kernel, hosts (root for the last two)
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -q $(PARALLEL) tests/unit src benchmarks tests/captures tests/accuracy tests/fuzz
	$(BIN)/pytest -q tests/kernel tests/hosts tests/cases tests/soak tests/web

check: build $(VENV)/.dev  ## the unit tests and doctests, but for the slowest; without root
	$(BIN)/pytest -q $(PARALLEL) -m "not slow" tests/unit src benchmarks

build: setup $(PROGRAMS)/wiremeter.bpf.o $(VENV)/.installed  ## compile the programs, the binding and the web page; leaves $(BIN)/wiremeter
	@$(MAKE) --no-print-directory $(WEB) || echo "the web page could not be built, for the reason above; all else works without it, and 'make web' tries again" >&2

web: $(WEB)  ## build the server's web page

screenshots: setup-screenshots build $(WEB) $(VENV)/.dev  ## pictures of each view of the web page, light, dark and narrow, in build/screenshots
	PYTHONPATH=tests $(BIN)/python -m web.screenshots build/screenshots

bench: setup build/bench.bpf.o build $(VENV)/.dev  ## measure ns per packet, drain, agent and names (root); ARGS=--write puts the figures into README and docs
	$(BIN)/python -m benchmarks $(ARGS)

compare: setup-compare build/generator.bpf.o build $(VENV)/.compare  ## wiremeter beside libpcap and other meters (root); ARGS=--quick; writes docs/performance.md
	$(BIN)/python -m benchmarks.compare --write $(ARGS)

accuracy: setup-test build $(VENV)/.dev  ## scenarios between namespaces against the senders' arithmetic (root); writes docs/accuracy.md
	PYTHONPATH=tests $(BIN)/python -m accuracy --write

kernels: setup-kernels build $(VENV)/.dev  ## other kernels, booted in software, with the meter inside (root); ARGS="NAME..."; writes docs/kernels.md
	PYTHONPATH=tests $(BIN)/python -m guests --write $(ARGS)

fuzz: setup-test build $(VENV)/.dev  ## libFuzzer with sanitizers on the host library, for FUZZ_SECONDS; corpus in build/fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

soak: build $(VENV)/.dev  ## agents and a server under faults for SOAK_SECONDS (1800); all must be stored once, or counted
	PYTHONPATH=tests $(BIN)/python -m soak --seconds $(SOAK_SECONDS)

differential: setup-test build $(VENV)/.dev  ## MESSAGES (300000) of DNS, TLS and HTTP, whole and damaged, read here and by dnspython, tshark and h11
	DNS_MESSAGES=$(MESSAGES) TLS_HELLOS=$(MESSAGES) HTTP_MESSAGES=$(MESSAGES) $(BIN)/pytest -q -n 2 --timeout 7200 tests/unit/names/test_dns_differential.py tests/unit/names/test_tls_tshark.py tests/unit/names/test_http1_differential.py

fuzz-cli: build $(VENV)/.dev  ## RUNS (5000) random command lines, streams, locales and signals; none may leave a traceback
	PYTHONPATH=tests $(BIN)/python -m fuzz.command_line --runs $(RUNS)

release: build $(WEB) $(VENV)/.release  ## sdist, wheel, SBOM and checksums in dist/; the wheel is built twice, and must be the same bytes
	scripts/release

release-test: setup-release $(VENV)/.dev  ## that wheel in bare roots of Debian, metering what is sent, exactly (root)
	PYTHONPATH=tests $(BIN)/python -m release

deb: setup-deb $(WEB)  ## Debian packages of this release of Debian, in dist/
	scripts/build-deb

docs: $(VENV)/.dev  ## rewrite the pages that are made from definitions in the code
	$(BIN)/python scripts/documents.py
	$(BIN)/python scripts/configuration.py
	$(BIN)/python scripts/alerts.py
	$(BIN)/python scripts/dashboards.py

man: $(VENV)/.installed  ## write the man pages to build/man
	$(BIN)/python scripts/manual.py build/man

lint: $(VENV)/.dev $(WEB)  ## formatting, lint, types, layering
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $(C_SOURCES)
	$(NPM) run --silent check

format: $(VENV)/.dev  ## rewrite the sources in house style
	$(BIN)/ruff check --fix-only $(PYTHON_SOURCES)
	$(BIN)/ruff format $(PYTHON_SOURCES)
	$(BIN)/clang-format -i $(C_SOURCES)

setup:  ## install the system packages that building needs (root), if any is missing
	@scripts/setup build

setup-test:
	@scripts/setup test

setup-screenshots:
	@scripts/setup screenshots

setup-kernels: setup-test
	@scripts/setup kernels

setup-compare:
	@scripts/setup compare

setup-release: setup
	@scripts/setup release

setup-deb:
	@scripts/setup deb

$(PROGRAMS)/%.bpf.o: bpf/%.bpf.c $(BPF_HEADERS) $(COMPILE_BPF) | setup
	$(COMPILE_BPF) $< $@ -Werror

build/bench.bpf.o: benchmarks/bench.bpf.c bpf/wiremeter.bpf.c $(BPF_HEADERS) $(COMPILE_BPF) | setup
	$(COMPILE_BPF) $< $@ -Werror

build/generator.bpf.o: benchmarks/generator.bpf.c $(COMPILE_BPF) | setup
	$(COMPILE_BPF) $< $@ -Werror

$(VENV)/bin/python: | setup
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wiremeter needs Python 3.11; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip setuptools wheel cffi

$(VENV)/.installed: pyproject.toml setup.py src/wiremeter/libbpf/build.py src/wiremeter/libbpf/shim.c $(wildcard src/wiremeter/isolation/seal* src/wiremeter/reports/json_rows*.[cp]*) $(HOST_SOURCES) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[arrow,server]'
	@touch $@

$(BIN)/npm: | $(VENV)/.installed
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[web]'

web/node_modules/.package-lock.json: web/package.json web/package-lock.json | $(BIN)/npm
	$(NPM) ci --silent --no-audit --no-fund

$(WEB): $(WEB_SOURCES) web/node_modules/.package-lock.json
	$(NPM) run --silent build -- --logLevel warn
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/.release: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[release]'
	@touch $@

$(VENV)/.compare: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[compare]'
	@touch $@

clean:  ## remove what was built
	rm -rf $(VENV) build web/node_modules src/wiremeter/server/web/built $(PROGRAMS)/*.o src/*.egg-info src/wiremeter/libbpf/_libbpf.* src/wiremeter/datapath/_host.* src/wiremeter/names/_library.* src/wiremeter/isolation/_seal.* src/wiremeter/reports/_json_rows.*
