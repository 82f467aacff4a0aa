# make demo    set up, train the default experiment, say where its report is (about twenty minutes on two cores)
# make test    set up with the test extras, then run the tests
# make lint    style, types and the import contract
# make clean   remove what builds and checks leave behind; the virtual environment and the runs stay

PYTHON ?= python3
VENV ?= .venv
EXPERIMENT ?= experiments/openmoji.yaml
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	@$(BIN)/vargpt fit -c $(EXPERIMENT)
	@report="runs/$(basename $(notdir $(EXPERIMENT)))/report.html"; \
	if [ -f "$$report" ]; then echo "The report: file://$(CURDIR)/$$report"; fi

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf

# Packages are installed again only when pyproject.toml has changed.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing the package and what it needs into $(VENV) (some minutes the first time) ..."
	@$(PIP) install -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing the package and what its tests need into $(VENV) (some minutes the first time) ..."
	@$(PIP) install -e ".[dev]"
	@touch $@ $(VENV)/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
