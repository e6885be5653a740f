# Everything is installed once, into .venv, from pinned versions. `make demo` is the first look.
# Where .venv is of another version, PYTHON=python3.13 has a folder of its own beside it: .venv-3.13.
PYTHON ?= python3
VENV := .venv
version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifneq ($(origin PYTHON),file)
asked := $(call version,$(PYTHON))
$(if $(asked),,$(error PYTHON=$(PYTHON) does not start))
found := $(if $(wildcard .venv/bin/python),$(call version,.venv/bin/python),$(asked))
VENV := .venv$(if $(filter $(asked),$(found)),,-$(asked))
endif
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt
# Where torch comes from: make demo TORCH_INDEX=… takes one that is smaller, or for another GPU. docs/docker.md
TORCH_INDEX ?=
PIP_INSTALL := $(BIN)/pip install --disable-pip-version-check -c constraints.txt
# Many tests wait for processes, not for a core. Who has run its half takes from the other's.
PYTEST := $(BIN)/pytest -n 2 --dist worksteal

.PHONY: demo test test-slow check up test-redis test-storage bench gpu chaos soak hosts fuzz images-test clean dist wheel-test sbom audit

demo: $(VENV)/installed
	$(BIN)/crossmodal demo --out out

# What a change must pass: every part by its own tests, and each kind of death once. Or some of them: make test TESTS=tests/unit
test: $(VENV)/installed-dev
	$(PYTEST) -m 'not slow and not gpu' $(TESTS)

# The rest: whole stacks under load and in outages, trainings, storms, images, configuration; a dry run of `make gpu`.
test-slow: $(VENV)/installed-dev
	$(PYTEST) -m slow
	CROSSMODAL_TEST_DEVICE=cpu $(PYTEST) tests/gpu

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

up: $(VENV)/installed
	$(BIN)/crossmodal up

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/all.py

# On a machine with a GPU, eight minutes at most. CROSSMODAL_TEST_DEVICE=cpu make gpu: a dry run without one
gpu: $(VENV)/installed-dev
	$(BIN)/python -m tests.gpu

# What touches Redis, on another server: CROSSMODAL_TEST_REDIS_SERVER=/usr/bin/redis-server make test-redis
test-redis: $(VENV)/installed-dev
	$(BIN)/pytest tests/unit/test_ledger.py tests/unit/test_ledger_model.py tests/unit/test_recovery.py \
	  tests/unit/test_fairness.py tests/unit/test_deliveries.py tests/unit/test_connection.py \
	  tests/integration/test_redis_acl.py tests/integration/test_redis_prefix.py tests/integration/test_redis_backup.py \
	  tests/integration/test_redis_sentinel.py

# A storm of faults over a real stack, then an audit: make chaos SEED=1 MINUTES=20 JOBS=3000 MODELS=a,b,c
# These are fake models on devices that hold one or two of them; MODELS=, is for the models that ship.
MINUTES ?= 20
JOBS ?= 3000
chaos: $(VENV)/installed-dev
	$(BIN)/python -m tests.chaos.storm $(if $(SEED),--seed $(SEED)) --minutes $(MINUTES) --jobs $(JOBS) $(if $(MODELS),--models $(MODELS))

# Half of the load that the machine bears, for hours, and whether anything grows: make soak HOURS=6
HOURS ?= 6
soak: $(VENV)/installed-dev
	PYTHONPATH=. $(BIN)/python benchmarks/soak.py --hours $(HOURS)

# The contract of object stores, on one more: CROSSMODAL_TEST_STORAGE_URL=s3://bucket/folder make test-storage
test-storage: $(VENV)/installed-dev
	$(BIN)/pytest tests/unit/test_storage.py

# Network namespaces as four hosts, the cable of one pulled in the middle. As root: make hosts JOBS=1000
hosts: JOBS = 1000
hosts: $(VENV)/installed-dev
	$(BIN)/python -m tests.chaos.hosts --jobs $(JOBS)

# Images and compose file without Docker: built and run by Podman. As root, with 30 GB of disk; docs/docker.md
images-test: $(VENV)/installed-dev
	$(BIN)/python -m tests.images.check

# A wheel and an sdist, in dist/.
dist: $(VENV)/installed-dev
	rm -rf dist
	$(BIN)/python -m build

# Acceptance of a release: the wheel alone, in empty environments outside this tree. Brings PyTorch, 6 GB.
wheel-test: dist
	$(BIN)/python -m tests.wheel dist/*.whl

# What the installed environment consists of (CycloneDX); in a fresh clone, what the wheel brings.
sbom: $(VENV)/installed build/tools/installed
	mkdir -p dist
	build/tools/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible -o dist/sbom.cdx.json

# Known vulnerabilities of the pinned versions. Asks PyPI; AUDIT='-s osv' asks osv.dev.
audit: build/tools/installed
	build/tools/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt $(AUDIT)

# Thousands of made-up requests of two API keys: answers are documented, none is a 5xx or tells of the other key.
fuzz: $(VENV)/installed-dev
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-100} $(BIN)/pytest -s --timeout=3600 tests/fuzz

clean:
	rm -rf .venv .venv-* out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=..."'
	$(PYTHON) -m venv $(VENV)

# Another index is asked for torch and torchvision alone: what they need comes from where all else does.
$(VENV)/installed-torch: $(VENV)/bin/python constraints.txt
	$(if $(TORCH_INDEX),$(PIP_INSTALL) --no-deps --index-url '$(TORCH_INDEX)' torch torchvision)
	touch $@

$(VENV)/installed: $(VENV)/installed-torch $(SOURCES)
	$(PIP_INSTALL) -e '.[all]'
	touch $@

build/tools/installed: $(VENV)/bin/python $(SOURCES)
	$(PYTHON) -m venv build/tools
	build/tools/bin/pip install --disable-pip-version-check -c constraints.txt cyclonedx-bom pip-audit
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-torch $(SOURCES)
	$(PIP_INSTALL) -e '.[all,dev]'
	touch $(VENV)/installed $@
