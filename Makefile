# Everything is installed once, into .venv, from pinned versions. `make demo` is the first look.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml constraints.txt

.PHONY: demo test check up bench chaos clean

demo: .venv/installed
	$(BIN)/crossmodal demo --out out

test: .venv/installed-dev
	$(BIN)/pytest

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

up: .venv/installed
	$(BIN)/crossmodal up

bench: .venv/installed-dev
	$(BIN)/python benchmarks/all.py

# A storm of faults over a real stack, then an audit: make chaos SEED=1 MINUTES=20 JOBS=3000
MINUTES ?= 20
JOBS ?= 3000
chaos: .venv/installed-dev
	$(BIN)/python -m tests.chaos.storm $(if $(SEED),--seed $(SEED)) --minutes $(MINUTES) --jobs $(JOBS)

clean:
	rm -rf .venv out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=..."'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python $(SOURCES)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@
