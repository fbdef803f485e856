# What people do daily; make help lists it. Overrides: make serve PORT=9000 WORKERS=2 MODELS=my-models
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 1
MODELS ?= models
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# Tests of one group, such as those that start servers, follow each other; everything else runs beside them.
PYTEST := -m pytest --numprocesses logical --maxprocesses 8 --dist loadgroup
OLDEST := .lower-bounds
KUBECTL := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),$(BIN)/kubectl)
export ORT_DISABLE_TELEMETRY := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help serve test test-fast check attack lower-bounds format clean

help:  ## list what make can do
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{printf "%-13s %s\n", $$1, $$2}'

serve: $(VENV)/serving  ## serve the bundled students on HOST:PORT
	$(BIN)/ladabert-serve --host $(HOST) --port $(PORT) --workers $(WORKERS) --models $(MODELS)

test: $(VENV)/development check $(KUBECTL)  ## all checks and tests
	$(BIN)/python $(PYTEST)

test-fast: $(VENV)/development  ## the tests that start no server and train nothing, under a minute
	$(BIN)/python $(PYTEST) -m 'not slow'

check: $(VENV)/development  ## lint, format, types, which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

attack: $(VENV)/development  ## every attack on a server, in full
	$(BIN)/python -m tests.attacks

lower-bounds: $(OLDEST)/installed  ## the service's tests on the oldest versions that pyproject.toml allows
	$(OLDEST)/bin/python $(PYTEST) tests/service tests/attacks --ignore tests/service/test_openapi_is_true.py --ignore-glob 'tests/service/test_adopt*.py'

format: $(VENV)/development  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what make and the tools wrote
	rm -rf $(VENV) $(OLDEST) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

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

# kubectl builds the overlays of deploy/kubernetes. Without it, elsewhere than on Linux on x86-64, these tests are skipped.
$(BIN)/kubectl: tests/kubectl.py | $(BIN)/python
	$(BIN)/python -m tests.kubectl $@

# numpy's oldest version has no build for Python 3.13 and newer.
$(OLDEST)/installed: pyproject.toml tests/lower_bounds.py
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m tests.lower_bounds > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip --disable-pip-version-check --quiet install --constraint $(OLDEST)/constraints.txt \
	  --editable '.[tracing,parquet]' pytest pytest-xdist hypothesis httpx psutil pyyaml onnx 'tritonclient[http]'
	touch $@
