# The environment lives in .venv; every target makes it first if need be.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Compiled programs persist between runs; only the entry points that we own set JAX's environment.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.3

# What is run a second time as a user sees it who has turned on float64 for all of JAX.
X64 := tests/inference tests/surrogates tests/bo tests/test_fitting.py tests/test_estimators.py

.PHONY: install demo test test-x64 test-all lint docs clean

install: $(STAMP)

# torch first and pinned: the plain name would bring several GB of CUDA packages.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[all,docs,test,dev]"
	touch $(STAMP)

demo: install
	$(BIN)/python examples/demo.py

# Two processes, a file to each in turn: small programs gain nothing from a second thread.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Networks are float32 all the same, and programs those that `test` has compiled and kept.
test-x64: install
	JAX_ENABLE_X64=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(X64)

test-all: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .jax_cache .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info site
