# Everything happens in .venv and in tests/clients/node/node_modules; nothing is installed elsewhere
# (but see `chromium`, `nginx` and `node`).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
LOCKED := --constraint constraints.txt
CLIENTS := tests/clients/node
# So many files of tests are run at a time; most of their time they wait.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test check fix soak faults cluster fuzz bench chromium nginx node

help: ## show this
	@echo "make TARGET; the first two are all you need:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## start a server over documents that come with Holdfast
	@$(BIN)/holdfast demo

test: $(VENV)/.development chromium nginx $(CLIENTS)/node_modules/.installed ## run every test
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

check: $(VENV)/.development ## lint, formatting, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: $(VENV)/.development ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

soak: $(VENV)/.development chromium ## the tests that take long, in their long form
	$(BIN)/pytest -m slow

faults: $(VENV)/.development ## kill the server again and again; ARGS="…" goes to tests.faults
	$(BIN)/python -m tests.faults $(ARGS)

cluster: $(VENV)/.development ## break three nodes and their PostgreSQL; ARGS="…" goes to tests.cluster
	$(BIN)/python -m tests.cluster $(ARGS)

fuzz: $(VENV)/.development ## hostile answers for decoders and encoders; ARGS="…" goes to tests.fuzz
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(VENV)/.development ## measure what a chunk costs; ARGS="…" goes to bench
	$(BIN)/python -m bench $(ARGS)

# Build backends are installed first, so that the constraints hold for them, too. (Some tools come
# as sources that setuptools builds.)
$(VENV)/.runtime: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing Holdfast into $(VENV) ..."
	@$(PIP) install $(LOCKED) hatchling editables
	@$(PIP) install $(LOCKED) --no-build-isolation --editable .
	@touch $@

$(VENV)/.development: $(VENV)/.runtime
	@echo "Installing the tools for tests and checks into $(VENV) ..."
	@$(PIP) install $(LOCKED) setuptools wheel
	@$(PIP) install $(LOCKED) --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Holdfast needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The page is tested in a real browser.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "the tests of the page need Chromium; on Debian: apt-get install chromium" >&2; exit 1; }; \
	  echo "Installing Chromium for the tests of the page ..."; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium >/dev/null; }

# The example in deploy/ is tested with it; its service is neither needed nor started.
nginx:
	@PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "the tests of deploy/ need nginx; on Debian: apt-get install nginx" >&2; exit 1; }; \
	  echo "Installing nginx for the tests of deploy/ ..."; \
	  policy=/usr/sbin/policy-rc.d; \
	  test -e $$policy || { trap "rm $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod +x $$policy; }; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -qq --yes --no-install-recommends nginx >/dev/null; }

# Clients that people have are tested as they come from npm, in the exact versions of package.json.
# There is no lock file, as it would hold addresses of a registry. The clients' scripts are not run.
$(CLIENTS)/node_modules/.installed: $(CLIENTS)/package.json | node
	@echo "Installing clients for tests into $(CLIENTS)/node_modules ..."
	@cd $(CLIENTS) && npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

node:
	@command -v node >/dev/null && command -v npm >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "the tests of JavaScript clients need Node.js 20 or newer with npm; on Debian: apt-get install nodejs npm" >&2; exit 1; }; \
	  echo "Installing Node.js for the tests of JavaScript clients ..."; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -qq --yes --no-install-recommends nodejs npm >/dev/null; }
