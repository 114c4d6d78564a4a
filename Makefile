# Every target sets up the virtual environment that it needs.
PYTHON ?= python3
VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
USABLE := $(VENV)/.usable
READY := $(VENV)/.ready
DOCUMENTED := $(VENV)/.documented

.DEFAULT_GOAL := help
.PHONY: help train test test-slow test-oldest gpu docs check lint types floors format clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: $(USABLE)  ## Train a language model on Python's own manual, in at most 2 minutes
	$(BIN)/seqnets train experiment=python_docs

test: $(READY)  ## Run the test suite without slow tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(READY)  ## Run the whole test suite, slow tests included
	$(BIN)/python -m pytest -n 2

test-oldest:  ## Run the test suite with the oldest libraries that are supported
	$(MAKE) .venv-oldest/.ready VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal -m "not slow" --ignore tests/test_quality.py

gpu: $(READY)  ## Check and measure the engine on this machine's GPU, in less than 10 minutes
	PYTHON=$(BIN)/python scripts/gpu_acceptance.sh

docs: $(DOCUMENTED)  ## Build the documentation as a site, build/docs/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . build/docs

check: lint types floors test  ## Check style, types, layering and tests

lint: $(READY)  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## Check types
	$(BIN)/mypy

floors: $(READY)  ## Check the layering of imports
	$(BIN)/lint-imports

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the virtual environment, builds and caches
	rm -rf $(VENV) .venv-oldest build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache

$(USABLE): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	    "seqnets needs Python 3.10 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[plot]'
	@# Else the folder of this tree, if it is named seqnets, is imported from the folder that holds it.
	@$(BIN)/python -c 'import os, sysconfig; folder = sysconfig.get_path("purelib"); \
	    open(os.path.join(folder, "seqnets.pth"), "w").write(os.path.abspath("src"))'
	@touch $(USABLE)

$(READY): $(USABLE)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[test]'
	@touch $(READY)

$(DOCUMENTED): $(USABLE)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[docs]'
	@touch $(DOCUMENTED)
