# make install · demo · test · lint · bench. Stamp files in .venv keep a second call from installing again.
PYTHON ?= python3
TORCH ?= 2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.stamp-core
DEV := $(VENV)/.stamp-dev
REAL := $(if $(wildcard ../shared),1,$(TUNELOOP_REAL))

.PHONY: help install install-dev demo test lint format bench clean

help:
	@echo "make install | demo | test | lint | format | bench | clean     (PYTHON=$(PYTHON) TORCH=$(TORCH) VENV=$(VENV))"

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements-tools.lock

# torch by version and by pip, because only pip honours the machine's own find-links; the rest is pinned by hash.
$(VENV)/.stamp-torch-$(TORCH): | $(BIN)/uv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile torch==$(TORCH)
	touch $@

$(CORE): requirements.lock pyproject.toml $(VENV)/.stamp-torch-$(TORCH)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

$(DEV): requirements-dev.lock $(CORE)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-dev.lock
	touch $@

install: $(CORE)

install-dev: $(DEV)

demo: $(CORE)
	$(BIN)/tuneloop demo --out runs/demo

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	TUNELOOP_REAL=$(REAL) $(BIN)/python -m pytest -q

bench: $(CORE)
	$(BIN)/python benchmarks/help_time.py

clean:
	rm -rf build dist runs .mypy_cache .ruff_cache .pytest_cache
