# Each target first makes sure of what it needs in the environment .venv.
# Settings pass through: `make serve MNN_PORT=9000`, `make train ARGS="--epochs 1"`.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
TESTS ?= tests/unit tests/integration tests/repository
WORKERS ?= 2
BIN := $(VENV)/bin
PYTEST = $(BIN)/python -m pytest $(if $(COVERAGE),--cov --cov-report=term:skip-covered)
PEERS_PYTHON := .venv-peers/bin/python

# Stamps of what the environment holds: answering on a CPU, training, the development tools.
BASE := $(VENV)/.base
TRAINING := $(VENV)/.training
DEV := $(VENV)/.dev

.DEFAULT_GOAL := help
.PHONY: help install serve train evaluate baselines lint type format check test test-all \
	test-training test-browser test-notebooks test-soak test-clean-clone test-containers test-ray \
	soak peers bench docs images notebooks clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# uv takes a fraction of pip's time; pip steps in where uv is missing or cannot reach its index.
define INSTALL
$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.$(EXTRAS)' \
|| { $(BIN)/python -m ensurepip && \
$(BIN)/python -m pip install --constraint constraints.txt --editable '.$(EXTRAS)'; }
touch $@
endef

$(BASE): private EXTRAS = $(if $(shell nvidia-smi -L 2>/dev/null | grep '^GPU'),[cuda])
$(BASE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d; name another with PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	-test -x $(BIN)/uv || $(PYTHON) -m pip --python $(BIN)/python install --quiet --constraint constraints.txt uv
	$(INSTALL)

$(TRAINING): private EXTRAS := [training]
$(TRAINING): $(BASE)
	$(INSTALL)

$(DEV): private EXTRAS := [training,dev]
$(DEV): $(TRAINING)
	$(INSTALL)

# In an environment of its own: uvicorn behaves differently where some of Ray's packages are there.
$(VENV)/.ray: private EXTRAS := [ray]
$(VENV)/.ray: $(DEV)
	$(INSTALL)

install: $(DEV) ## install everything for development into .venv

serve: $(BASE) ## serve on http://127.0.0.1:8000
	$(BIN)/python -m service $(ARGS)

train: $(TRAINING) ## train on MNIST and write checkpoints/digits.safetensors
	$(BIN)/python -m training.run $(ARGS)

evaluate: $(TRAINING) ## evaluate a checkpoint and write a report
	$(BIN)/python -m training.evaluate $(ARGS)

baselines: $(TRAINING) ## train and compare the baselines; an hour or two
	$(BIN)/python -m training.baselines $(ARGS)

lint: $(DEV) ## ruff, hadolint, actionlint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile
	$(BIN)/actionlint

type: $(DEV) ## mypy, strict
	$(BIN)/mypy

format: $(DEV) ## fix and format with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(DEV) ## unit, integration and repository tests; TESTS=tests/unit, WORKERS=4, COVERAGE=1
	OMP_NUM_THREADS=1 $(PYTEST) --numprocesses $(WORKERS) --dist loadfile $(TESTS) $(ARGS)

test-training: $(DEV) ## train, evaluate and benchmark for real
	$(PYTEST) tests/system/training $(ARGS)

test-browser: $(DEV) ## the web page in Chromium
	$(PYTEST) tests/system/browser $(ARGS)

test-notebooks: $(DEV) ## run the notebooks on little data
	$(PYTEST) tests/system/notebooks $(ARGS)

test-soak: $(DEV) ## overload, leaks, reloads and shutdowns, in short form
	$(PYTEST) tests/system/soak $(ARGS)

soak: $(DEV) ## the soak tests in long form; about 25 minutes
	MNN_SOAK=long $(PYTEST) tests/system/soak --capture=no $(ARGS)

test-clean-clone: $(DEV) ## install and serve from a clean clone
	$(PYTEST) tests/system/clean_clone $(ARGS)

test-containers: $(DEV) ## build and run the images on a Docker engine
	$(PYTEST) tests/system/containers $(ARGS)

test-ray: ## the service on a local Ray cluster of several nodes
	$(MAKE) VENV=.venv-ray .venv-ray/.ray
	MNN_REQUIRE_RAY=1 .venv-ray/bin/python -m pytest --through-ray tests/system/ray tests/integration $(ARGS)

test-all: test test-training test-browser test-notebooks test-soak test-clean-clone test-containers test-ray ## all tests

check: lint type test-all ## lint, types and all tests

# BentoML needs older OpenTelemetry packages than constraints.txt has.
$(VENV)/.peers: $(DEV) benchmarks/common/peers.txt
	grep -v '^opentelemetry-' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/uv pip install --python $(BIN)/python --constraint $(VENV)/constraints.txt --requirement benchmarks/common/peers.txt
	touch $@

peers: ## make .venv-peers, with the libraries and servers that benchmarks compare with
	$(MAKE) VENV=.venv-peers .venv-peers/.peers

bench: $(DEV) peers ## benchmark beside other libraries and servers; half an hour
	$(PEERS_PYTHON) -m benchmarks.inference.predict --json benchmarks/results/predict.json
	$(PEERS_PYTHON) -m benchmarks.inference.runtimes --json benchmarks/results/runtimes.json
	$(PEERS_PYTHON) -m benchmarks.inference.preprocessing --json benchmarks/results/preprocessing.json
	$(BIN)/python -m benchmarks.serving.page --json benchmarks/results/page.json
	$(PEERS_PYTHON) -m benchmarks.training.train --json benchmarks/results/train.json
	$(PEERS_PYTHON) -m benchmarks.serving.serve --json benchmarks/results/serve.json

docs: $(DEV) ## write the generated tables of the documents
	$(BIN)/python -m docs.make_tables

images: $(DEV) ## draw the images of the documents and record the API's examples
	$(BIN)/python -m docs.make_images
	$(BIN)/python -m docs.make_screenshot
	$(BIN)/python -m docs.make_examples

notebooks: $(DEV) ## run the notebooks in full and keep their output; ten minutes
	$(BIN)/python -m notebooks.refresh $(ARGS)

clean: ## remove the environments and all caches
	rm -rf .venv .venv-peers .venv-ray build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
