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
TOOLS := .tools
LOCKS := docker/requirements.txt docker/requirements-openvino.txt docker/requirements-cuda.txt
KUBECTL := $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),$(BIN)/kubectl)
export ORT_DISABLE_TELEMETRY := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help serve test test-fast test-containers check attack lower-bounds lock audit sbom format clean

help:  ## list what make can do
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{printf "%-15s %s\n", $$1, $$2}'

serve: $(VENV)/serving  ## serve the bundled students on HOST:PORT
	$(BIN)/ladabert-serve --host $(HOST) --port $(PORT) --workers $(WORKERS) --models $(MODELS)

test: $(VENV)/development check $(KUBECTL)  ## all checks and tests
	$(BIN)/python $(PYTEST)

test-fast: $(VENV)/development  ## the tests that start no server and train nothing, under a minute
	$(BIN)/python $(PYTEST) -m 'not slow'

test-containers: $(VENV)/development  ## the image and the compose file in real containers, where Podman and Buildah are
	$(BIN)/python -m tests.containers

check: $(VENV)/development  ## lint, format, types, which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

attack: $(VENV)/development  ## every attack on a server, in full
	$(BIN)/python -m tests.attacks

lower-bounds: $(OLDEST)/installed  ## the service's tests on the oldest versions that pyproject.toml allows
	$(OLDEST)/bin/python $(PYTEST) tests/service tests/attacks --ignore tests/service/test_openapi_is_true.py --ignore-glob 'tests/service/test_adopt*.py'

lock: $(LOCKS)  ## the hashes of what the images install, after a change of pyproject.toml or constraints.txt

audit: $(TOOLS)/installed  ## known vulnerabilities of every pinned version; asks PyPI
	$(TOOLS)/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

sbom: $(TOOLS)/installed docker/requirements.txt  ## sbom.cdx.json: what the image for CPUs installs, in CycloneDX
	$(PYTHON) -m venv --clear build/image
	build/image/bin/pip --disable-pip-version-check --quiet install --require-hashes --requirement docker/requirements.txt
	$(TOOLS)/bin/cyclonedx-py environment build/image --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json

format: $(VENV)/development  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what make and the tools wrote
	rm -rf $(VENV) $(OLDEST) $(TOOLS) build dist sbom.cdx.json .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

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

$(TOOLS)/installed: constraints.txt
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/pip --disable-pip-version-check --quiet install --constraint constraints.txt pip-audit cyclonedx-bom uv
	touch $@

# For Linux and the Python of the image; the hashes are those of every processor. onnxruntime-gpu takes the place of onnxruntime, as in docker/Dockerfile.
LOCK = $(TOOLS)/bin/uv pip compile --quiet --constraint constraints.txt --python-platform linux --python-version 3.11 \
  --generate-hashes --no-annotate --custom-compile-command 'make lock' --output-file $@
$(LOCKS): pyproject.toml constraints.txt | $(TOOLS)/installed
docker/requirements.txt:
	$(LOCK) pyproject.toml
docker/requirements-openvino.txt:
	$(LOCK) --extra openvino pyproject.toml
docker/requirements-cuda.txt:
	$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
	  | sed 's/^onnxruntime>.*/onnxruntime-gpu[cuda,cudnn]/' | $(LOCK) -
