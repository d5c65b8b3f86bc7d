# make run and make test set up everything they need, in .venv and build/.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO := build/demo/.made
# Every package in one version, with the hashes of its files: for Linux and macOS, Python 3.11 on.
# `make LOCK= run` takes the newest that pyproject.toml allows instead.
LOCK ?= etc/requirements.lock
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test check lock audit bench bench-rivals chaos soak fuzz explore test-llama-cpp-python test-clients test-browser clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 26

$(READY): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "llmd needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef LOCK
	@$(PIP_INSTALL) --require-hashes -r $(LOCK) || { \
	  echo "The packages of $(LOCK) cannot be installed, see above. If hashes do not match,"; \
	  echo "somebody may have changed a package: go no further, and tell us. If the lock file"; \
	  echo "has no files for this Python or machine, \`make LOCK= $(or $(MAKECMDGOALS),run)\`"; \
	  echo "takes the newest versions that pyproject.toml allows, whatever their hashes are."; exit 1; }
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
else
	$(PIP_INSTALL) -e '.[dev]'
endif
	@# As pip does for every other package: where Python may write no bytecode, llmd starts late.
	@$(BIN)/python -m compileall -q llmd
	@touch $@

$(DEMO): $(READY) $(wildcard etc/demo/model/*) etc/demo/variants.py
	$(BIN)/python etc/demo/variants.py build/demo
	@touch $@

run: $(DEMO)  ## set up, then serve the demo models in the foreground
	@$(BIN)/llmd serve --config etc/demo.yaml --hints

test: $(DEMO)  ## set up, then run the tests (but for llama-cpp-python's, clients' and browser's)
	$(BIN)/python -m pytest -m 'not llama_cpp_python and not clients and not browser'

check: $(READY)  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test-llama-cpp-python: $(DEMO)  ## compile llama-cpp-python (6 minutes), then test it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,llama-cpp-python]'
	$(BIN)/python -m pytest -m llama_cpp_python

# What renews and audits the lock file is no part of what it locks.
build/lock-venv/.installed:
	$(PYTHON) -m venv build/lock-venv
	build/lock-venv/bin/python -m pip install --quiet --disable-pip-version-check uv pip-audit
	@touch $@

lock: build/lock-venv/.installed  ## renew etc/requirements.lock
	build/lock-venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --extra dev \
	  --custom-compile-command 'make lock' --output-file etc/requirements.lock pyproject.toml

audit: build/lock-venv/.installed  ## look up what is known against the packages of the lock file
	build/lock-venv/bin/pip-audit --strict --disable-pip --require-hashes -r etc/requirements.lock

# Other people's programs, in exact versions, in build/ and nowhere else. No install scripts are run
# but two, which put the program for this machine in its place. What is missing is skipped by its
# tests, which say so.
build/clients-venv/.installed: tests/clients/python/requirements.txt
	test -x build/clients-venv/bin/python || $(PYTHON) -m venv build/clients-venv
	build/clients-venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

build/node_modules/.installed: tests/clients/node/package.json
	@mkdir -p build && cp $< build/package.json
	@if command -v npm > /dev/null; then \
	  npm install --prefix build --ignore-scripts --no-audit --no-fund --loglevel=error && \
	  (cd build/node_modules/@anthropic-ai/claude-code && node install.cjs) && \
	  (cd build/node_modules/opencode-ai && node postinstall.mjs) && touch $@; \
	else echo "npm is missing: the programs for Node are skipped"; fi

test-clients: $(DEMO) build/clients-venv/.installed build/node_modules/.installed  ## install other people's programs (2 GB) into build/, then test with them
	$(BIN)/python -m pytest -m clients -rs

test-browser: $(READY)  ## hostile web pages in Chromium, if it is installed
	$(BIN)/python -m pytest -m browser -rs tests/security

chaos: $(DEMO)  ## faults and traffic at random for SECONDS=600; SEED= replays
	$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

soak: $(DEMO)  ## steady traffic for SECONDS=3600: do memory, descriptors, tasks, latency rise?
	$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),3600)

fuzz: $(READY)  ## requests and answers at random, against a second parser, for SECONDS=600; SEED= replays
	$(BIN)/python -m tests.http --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

STATES ?= 300000
explore: $(READY)  ## every state of small worlds around the scheduler, up to STATES=300000 each
	LLMD_EXPLORE_STATES=$(STATES) $(BIN)/python -m pytest -s tests/core/test_exploration.py

bench: $(DEMO)  ## measure everything, or ONLY="idle swap", idle for SECONDS=600; build/bench/
	LLMD_BENCH_SECONDS=$(SECONDS) $(BIN)/python -m tests.bench $(ONLY)

# What `make bench ONLY=rivals` compares with, in build/ and nowhere else.
build/nginx/.installed:
	@mkdir -p build/nginx
	@if command -v apt-get dpkg > /dev/null; then \
	  cd build/nginx && apt-get download -q nginx && dpkg -x nginx_*.deb . && touch .installed; \
	else echo "no apt-get: nginx is taken from PATH, or left out"; fi

build/litellm/.installed:
	test -x build/litellm/bin/python || $(PYTHON) -m venv build/litellm
	build/litellm/bin/python -m pip install --quiet --disable-pip-version-check 'litellm[proxy]'
	@touch $@

bench-rivals: $(READY) build/nginx/.installed build/litellm/.installed  ## nginx and litellm (750 MB) into build/, for bench ONLY=rivals

clean:  ## remove what the other targets made
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
