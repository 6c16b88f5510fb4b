# One command per need; `make help` lists them. Needs make and Python 3.11 or newer, nothing else.
# The environment lives in .venv and is made again when a requirements file changes; those of other Pythons
# lie inside it.

# Looked for once, when it is needed: the shims of version managers take their time.
ifeq ($(origin PYTHON),undefined)
PYTHON = $(eval PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	if command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then command -v $$p; break; fi; done))$(PYTHON)
endif
VENV := .venv
BIN := $(VENV)/bin
# Twice the cores of the smallest machine: half of the time of these tests is waiting for a window to end.
JOBS ?= 4
# pip brings uv, which does the rest in a fifth of the time. Both install into this environment, whichever one the caller's
# variables and files name; uv wants a cache, and does without where the home folder cannot be written.
PIP := PIP_USER=0 PIP_TARGET= PIP_PREFIX= $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
NO_CACHE = $(shell cache="$${UV_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/uv}"; \
	{ mkdir -p "$$cache" && test -w "$$cache"; } 2>/dev/null || echo --no-cache)
# An index that pip was told of is uv's too. The shell asks for it, so that make prints no password.
INDEX := "$${UV_DEFAULT_INDEX:-$${UV_INDEX_URL:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)}}}"
UV = UV_NO_CONFIG=1 UV_DEFAULT_INDEX=$(INDEX) UV_PYTHON=$(BIN)/python $(BIN)/uv --quiet --system-certs $(NO_CACHE) pip
# What is locked is complete: no dependency is looked up, so what is published later changes nothing.
LOCKED := install --no-deps --require-hashes --no-build-isolation
UV_COMPILE = $(UV) compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

# An environment that was moved, damaged, or is of another Python than the one that is asked for is made again.
ifeq ($(MAKELEVEL),0)
TELL := -c 'import sys; print(sys.version_info[:2])'
ASKED := $(if $(filter command line,$(origin PYTHON)),$(PYTHON),$(BIN)/python)
_ := $(shell test ! -e $(VENV)/.runtime || { $(BIN)/report-bridge --version >/dev/null 2>&1 && \
	is=$$($(BIN)/python $(TELL)) && test "$$($(ASKED) $(TELL) 2>/dev/null || echo "$$is")" = "$$is"; } || rm -f $(VENV)/.runtime)
endif

# What a process has compiled the next one need not compile again, whatever the shell is set to.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo check check-types check-tests check-clients check-pythons check-this-python clients-ready clients-log coverage fix gen bench \
	fuzz simulate soak mutate interop dist lock clean python-is-there
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1: /p' Makefile | awk -F': ' '{printf "  make %-13s %s\n", $$1, $$2}'

demo: $(VENV)/.runtime ## show the bridge at work against the simulator; no account, and once it is set up no network
	@$(BIN)/report-bridge demo

check: ## everything, fast things first: format, lint, imports, generated files, then types, tests and clients at once
	@echo "check: takes 5 to 10 minutes on two cores where nothing is installed or compiled, less later"
	@$(MAKE) --no-print-directory -j2 $(VENV)/.stamp clients-ready
	@$(BIN)/python scripts/tools.py
	@$(BIN)/python scripts/code_lines.py
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/python scripts/check_tree.py
	$(BIN)/python scripts/generate.py --check
	$(BIN)/hadolint Containerfile
	$(BIN)/lint-imports --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@$(MAKE) --no-print-directory -j3 check-types check-tests clients-log; status=$$?; cat $(VENV)/clients.log; exit $$status

check-types: $(VENV)/.stamp
	$(BIN)/mypy

# Collected once before, so that not every worker compiles all tests for itself.
check-tests: $(VENV)/.stamp
	@$(BIN)/pytest -q --collect-only tests > $(VENV)/collect.log || { cat $(VENV)/collect.log; exit 1; }
	$(BIN)/pytest -q -n $(JOBS) tests

check-clients: $(VENV)/.runtime ## the Node and Go clients; without their tools they are named and left out, with CI set that is an error
	@sh scripts/check_clients.sh

clients-ready: # beside the installation: what the clients need, and Go's standard library compiled
	@sh scripts/check_clients.sh --setup

clients-log: # beside the Python tests, so their words come at the end
	@sh scripts/check_clients.sh > $(VENV)/clients.log 2>&1

check-pythons: $(VENV)/.stamp ## what a Python can break, on every promised one that is found (see scripts/tools.py)
	@$(BIN)/python scripts/tools.py
	@failed=; for python in $$($(BIN)/python scripts/tools.py --pythons); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); echo "check: Python $$version"; \
		$(MAKE) --no-print-directory check-this-python VENV=$(VENV)/py$$version PYTHON=$$python || failed="$$failed $$version"; \
		done; test -z "$$failed" || { echo "check: failed on Python$$failed" >&2; exit 1; }

check-this-python: $(VENV)/.stamp
	$(BIN)/report-bridge demo > $(VENV)/demo.log || { cat $(VENV)/demo.log; exit 1; }
	$(BIN)/pytest -q -n $(JOBS) tests/unit tests/contract \
		tests/e2e/test_packages.py tests/e2e/test_protocol.py tests/e2e/test_spec_examples.py tests/e2e/test_other_ways.py

coverage: $(VENV)/.stamp ## branch coverage of all Python tests, with the lines that are missed
	rm -f .coverage .coverage.*
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml COVERAGE_FILE=$(CURDIR)/.coverage \
		$(BIN)/pytest -q -n $(JOBS) --cov --cov-report=term tests

fix: $(VENV)/.stamp ## format, and mend what the linter can mend
	$(BIN)/ruff check --quiet --fix . || true
	$(BIN)/ruff format .

gen: $(VENV)/.stamp ## write the generated files again
	$(BIN)/python scripts/generate.py

bench: $(VENV)/.stamp ## measure and print machine, versions and ratios
	$(BIN)/python -m bench

fuzz: $(VENV)/.stamp ## properties with many examples, and the fuzzers
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -q -n $(JOBS) --timeout 1800 tests/unit tests/contract
	for f in scripts/fuzz_*.py; do $(BIN)/python $$f || exit 1; done

SEED ?= 1
COUNT ?= 1
STEPS ?= 40
simulate: $(VENV)/.stamp ## bridges in virtual time with faults, from a seed: SEED=n [COUNT=n] [STEPS=n] [TRACE=1]
	@$(BIN)/python -m tests.simulation $(SEED) --count $(COUNT) --steps $(STEPS) $(if $(TRACE),--trace)

soak: $(VENV)/.stamp ## kill real bridges for half an hour, then at every system call of a report (needs strace); fleets; sizes
	$(BIN)/python scripts/soak.py --minutes 30 --state .venv/soak.json
	$(BIN)/python scripts/soak_strace.py --minutes 20
	$(BIN)/python scripts/soak_takeover.py
	$(BIN)/python scripts/fleet_sizing.py
	$(BIN)/python scripts/soak_rows.py
	$(BIN)/python -m tests.simulation 1 --count 100000 --jobs $(JOBS) --keep-going

mutate: $(VENV)/.stamp ## change the core decisions one by one and see whether the tests notice
	$(BIN)/python scripts/mutate.py

interop: $(VENV)/.runtime ## have the Java library lsp4j talk to the bridge; needs a JDK, Maven and its repository
	@sh tests/interop/lsp4j/run.sh $(CURDIR)/$(BIN)/python $(CURDIR)/$(VENV)/lsp4j

dist: $(VENV)/.stamp ## build all packages into dist/, with the program without Python and the container image, and use them
	@$(BIN)/python -m scripts.build_dist
	@sh scripts/check_clients.sh --lint

lock: $(VENV)/.runtime ## resolve the requirements again (needs the network)
	$(UV_COMPILE) requirements/installer.in -o requirements/installer.txt
	$(UV_COMPILE) requirements/build.in -o requirements/build.txt
	$(UV_COMPILE) pyproject.toml -o requirements/runtime.txt
	$(UV_COMPILE) pyproject.toml --extra fleet requirements/dev.in -c requirements/build.txt -c requirements/runtime.txt -o requirements/dev.txt
	$(UV_COMPILE) pyproject.toml --extra fleet requirements/program.in -c requirements/build.txt -c requirements/dev.txt -o requirements/program.txt

clean: ## remove everything that was made
	rm -rf .venv build dist htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ---

python-is-there:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "make: Python 3.11 or newer is needed$(if $(PYTHON), (not $(PYTHON))); install it or say PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make environments; install its venv package (Debian: python3-venv)." >&2; exit 1; }

# Sources without a wheel are built without isolation, so that the build tools are locked by hash too.
$(VENV)/.runtime: pyproject.toml requirements/installer.txt requirements/build.txt requirements/runtime.txt | python-is-there
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(LOCKED) -r requirements/installer.txt
	$(UV) $(LOCKED) -r requirements/build.txt
	$(UV) $(LOCKED) -r requirements/runtime.txt
	$(UV) install --no-deps --no-build-isolation --editable .
	$(UV) check
	@touch $@

$(VENV)/.stamp: $(VENV)/.runtime requirements/dev.txt
	$(UV) $(LOCKED) -r requirements/dev.txt
	$(UV) check
	@sh scripts/install_browser.sh
	@touch $@
