# What people do daily. Overrides: make serve PORT=9000 WORKERS=2 MODELS=my-models
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 1
MODELS ?= models
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
export ORT_DISABLE_TELEMETRY := 1

.PHONY: serve test check attack format clean

serve: $(VENV)/serving  ## serve the bundled students on HOST:PORT
	$(BIN)/ladabert-serve --host $(HOST) --port $(PORT) --workers $(WORKERS) --models $(MODELS)

test: $(VENV)/development check  ## all checks and tests
	$(BIN)/python -m pytest

check: $(VENV)/development  ## lint, format, types, which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

attack: $(VENV)/development  ## every attack on a server, in full
	$(BIN)/python -m tests.attacks

format: $(VENV)/development  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	  "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/serving: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

# PyTorch goes first and alone: a range would take the newest build with several GB of CUDA packages.
$(VENV)/development: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install "$$(grep '^torch==' constraints.txt)"
	$(PIP) install --constraint constraints.txt --editable '.[compression,dev]'
	touch $@ $(VENV)/serving
