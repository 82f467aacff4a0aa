# make demo    set up, train the default experiment, say where its report is (about fifteen minutes on two cores)
# make test    set up with the test extras, then run the tests (NEWEST=1: with the newest packages, in .venv-newest)
# make lint    style, types and the import contract
# make docs    build the pages as a site in site/; a broken link stops it
# make lock    write the newest versions that pyproject.toml allows to constraints.txt, which demo and test install
# make clean   remove what builds and checks leave behind; the virtual environment and the runs stay

PYTHON ?= python3
NEWEST ?=
VENV ?= $(if $(NEWEST),.venv-newest,.venv)
EXPERIMENT ?= experiments/openmoji.yaml
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The versions that were tested, or what the ranges of pyproject.toml allow today.
INSTALL := $(PIP) install $(if $(NEWEST),--upgrade --upgrade-strategy eager,--constraint constraints.txt)

# Tests wait for processes that they have started: one worker more than cores keeps the cores at work.
.PHONY: demo test lint docs lock clean

demo: $(VENV)/.installed
	@$(BIN)/vargpt fit -c $(EXPERIMENT)
	@report="runs/$(basename $(notdir $(EXPERIMENT)))/report.html"; \
	if [ -f "$$report" ]; then echo "The report: file://$(CURDIR)/$$report"; fi

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n $$($(BIN)/python -c 'import os; print(min(8, os.cpu_count() + 1))') --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/.installed-dev
	@$(BIN)/python -m mkdocs build --strict

lock:
	@$(PYTHON) .ci/lock.py

clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -path './.venv*' -prune -o -name __pycache__ -type d -print | xargs rm -rf

# Packages are installed again only when pyproject.toml or the lock has changed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the package and what it needs into $(VENV) (some minutes the first time) ..."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the package and what its tests need into $(VENV) (some minutes the first time) ..."
	@$(INSTALL) -e ".[dev]"
	@touch $@ $(VENV)/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
