# Everything happens in .venv; nothing is installed elsewhere (but see `chromium`).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
LOCKED := --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check fix faults bench chromium

help: ## show this
	@echo "make TARGET; the first two are all you need:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## start a server over documents that come with Holdfast
	@$(BIN)/holdfast demo

test: $(VENV)/.development chromium ## run every test
	$(BIN)/pytest

check: $(VENV)/.development ## lint, formatting, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: $(VENV)/.development ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

faults: $(VENV)/.development ## kill the server again and again; ARGS="…" goes to tests.faults
	$(BIN)/python -m tests.faults $(ARGS)

bench: $(VENV)/.development ## measure what a chunk costs; ARGS="…" goes to bench
	$(BIN)/python -m bench $(ARGS)

# The build backend is installed first, so that the constraints hold for it, too.
$(VENV)/.runtime: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing Holdfast into $(VENV) ..."
	@$(PIP) install $(LOCKED) hatchling editables
	@$(PIP) install $(LOCKED) --no-build-isolation --editable .
	@touch $@

$(VENV)/.development: $(VENV)/.runtime
	@echo "Installing the tools for tests and checks into $(VENV) ..."
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
