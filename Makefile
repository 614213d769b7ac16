# `make chat` and `make test` are the set-up: each installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install chat test test-fast faults soak check clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.complete  ## a complete .venv, with pinned versions and the models

# torch first and by itself: with it installed nothing asks for another build.
$(VENV)/.complete: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Chorus needs Python 3.11 or newer; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --editable ".[dev]"
	$(BIN)/chorus models --fetch
	@touch $@

chat: install  ## talk to the shipped bot in the terminal
	@$(BIN)/chorus chat

test: install check  ## everything that CI runs
	$(BIN)/pytest

test-fast: install  ## tests without models, services, processes and floods, on all cores
	$(BIN)/pytest -n auto --dist worksteal -m "not model and not services and not processes and not slow"

faults: install  ## the fault suite at full length: thousands of kills, real pauses
	CHORUS_FAULTS=full $(BIN)/pytest tests/faults tests/connectors tests/test_hostile_patterns.py -s

MINUTES ?= 10
soak: install  ## traffic with faults for MINUTES, watching memory, files and times
	$(BIN)/python tests/faults/soak.py --minutes $(MINUTES)

check: install  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:  ## remove what was built; models stay in the user's cache
	rm -rf $(VENV) build *.egg-info .chorus
