# `make serve`, `make test`: each target makes sure of the environment first.
# Settings go through: `make serve MNN_PORT=9000`, `make train ARGS="--epochs 1"`.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS_PYTHON := .venv-peers/bin/python
PEERS := .venv-peers/.ready
RAY := .venv-ray/.ready

.DEFAULT_GOAL := help
.PHONY: help install serve train evaluate test test-slow soak test-docker test-ray lint type format check bench pictures notebooks controls clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY) ## make the environment in .venv

$(READY): pyproject.toml constraints.txt $(wildcard requirements/*.txt)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d; name another with PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

serve: $(READY) ## answer on http://127.0.0.1:8000
	$(BIN)/python -m service $(ARGS)

train: $(READY) ## train on MNIST and write checkpoints/digits.safetensors
	$(BIN)/python -m training.run $(ARGS)

evaluate: $(READY) ## everything that can be measured of the shipped weights, and a report
	$(BIN)/python -m training.evaluate $(ARGS)

controls: $(READY) ## what the Bayesian network buys, beside simpler ways; takes an hour or two
	$(BIN)/python -m training.baselines.__main__ $(ARGS)

test: $(READY) ## all tests but the slow ones
	$(BIN)/python -m pytest -m 'not slow and not docker and not ray' --cov --cov-report= $(ARGS)
	@$(BIN)/coverage report --skip-covered --precision=1 | tail -n 30

test-slow: $(READY) ## the slow tests: a clean clone, training on MNIST
	$(BIN)/python -m pytest -m slow $(ARGS)

soak: $(READY) ## the long form of the tests under load and of stops; some twenty-five minutes
	MNN_SOAK=long $(BIN)/python -m pytest -m soak --capture=no $(ARGS)

test-docker: $(READY) ## the containers on a real Docker engine
	$(BIN)/python -m pytest -m docker $(ARGS)

$(RAY): $(READY) tests/support/make_environment.py
	$(BIN)/python -m tests.support.make_environment
	touch $@

test-ray: $(RAY) ## the service on a Ray cluster of several nodes on this machine; five minutes
	MNN_REQUIRE_RAY=1 .venv-ray/bin/python -m pytest -m ray $(ARGS)

lint: $(READY) ## ruff: rules and format; hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile

type: $(READY) ## mypy, strict
	$(BIN)/mypy

format: $(READY) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint type test test-slow test-docker test-ray ## what CI runs

$(PEERS): $(READY) benchmarks/peers.txt benchmarks/common/make_peers.py
	$(BIN)/python -m benchmarks.common.make_peers
	touch $@

bench: $(PEERS) ## speed beside other libraries and servers, as tables and JSON; half an hour
	$(PEERS_PYTHON) -m benchmarks.inference.predict --json benchmarks/results/predict.json
	$(PEERS_PYTHON) -m benchmarks.inference.runtimes --json benchmarks/results/runtimes.json
	$(PEERS_PYTHON) -m benchmarks.inference.preprocessing --json benchmarks/results/door.json
	$(BIN)/python -m benchmarks.serving.page --json benchmarks/results/page.json
	$(PEERS_PYTHON) -m benchmarks.training.train --json benchmarks/results/train.json
	$(PEERS_PYTHON) -m benchmarks.serving.serve --json benchmarks/results/serve.json

pictures: $(READY) ## draw the pictures of the documents again, and answer their examples
	$(BIN)/python docs/make_pictures.py
	$(BIN)/python -m docs.make_screenshot
	$(BIN)/python -m docs.make_examples

notebooks: $(READY) ## run the notebooks in full and keep what they print and draw; ten minutes
	$(BIN)/python -m notebooks.refresh $(ARGS)

clean: ## remove the environment and all caches
	rm -rf $(VENV) .venv-peers .venv-ray build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
