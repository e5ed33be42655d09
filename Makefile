# One target a verb. Everything goes into .venv and .cache, beside this file.
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
LOCK = requirements
PYTEST_ARGS ?=
FULL_ARGS ?=
BENCH_ARGS ?=
# As root, tests may install the packages that they need.
export D1FLEET_TEST_INSTALL ?= $(if $(filter 0,$(shell id -u)),1,0)
# What a build of ours hands to make must not reach the builds that the tests make.
unexport MAKEFLAGS MFLAGS MAKELEVEL MAKEFILES

.PHONY: help demo fleet registry test test-full lint molecule bench clean lock
.DEFAULT_GOAL := help
# Set-up is quick and its steps depend on each other.
.NOTPARALLEL:

help:
	@echo 'make demo       build examples/ on three embedded hosts, and show which sub-make ran where'
	@echo 'make fleet      the same on three container hosts, enrolled by site.yml; needs root and podman'
	@echo 'make registry   the registry on this machine, for a look at its panel: Ctrl-C ends it'
	@echo 'make test       the tests, in well under 40 minutes; PYTEST_ARGS=... is passed on'
	@echo 'make test-full  everything, in parts that can be resumed; FULL_ARGS=... is passed on'
	@echo 'make lint       ruff, mypy, shellcheck, yamllint, ansible-lint'
	@echo 'make molecule   each role, and the fleet, on container hosts of both releases; needs root and podman'
	@echo 'make bench      the figures, as ratios to plain make and to ssh'
	@echo 'make lock       work out the locked dependencies in requirements/ again'
	@echo 'make clean      remove what all of these made'

demo: $(VENV)/.d1fleet
	@$(MAKE) -s --no-print-directory -C examples clean
	$(BIN)/d1fleet build --inventory examples/three-local-hosts.yml --summary -j6 -C examples

fleet: $(VENV)/.d1fleet
	@.ci/need fleet
	$(BIN)/python -m tests.containers.example

# On loopback, with its data in .cache. Who may sign in is said in another terminal.
registry: $(VENV)/.registry
	@mkdir -p -m 700 .cache/registry
	@echo 'who may sign in:  $(BIN)/d1fleet registry operator add NAME --data .cache/registry'
	@echo 'the panel:        http://127.0.0.1:33333/'
	$(BIN)/d1fleet registry serve --data .cache/registry

# One worker for tests that build on this machine, which share its slots, and one for the rest (tests/conftest.py).
test: $(VENV)/.dev
	@.ci/need test
	$(BIN)/python -m pytest -m 'not full' -n 2 $(PYTEST_ARGS)

test-full: $(VENV)/.dev
	@.ci/need test
	$(BIN)/python tests/full.py $(FULL_ARGS)

lint: $(VENV)/.dev
	@.ci/need lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files -z -- ':!*.j2' | xargs -0 awk 'FNR == 1 && /^#!.*[\/ ](ba)?sh( |$$)/ { print FILENAME }' | xargs shellcheck
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" ansible-lint --offline

# One scenario a role, and `default` for the fleet, on bare hosts: those of a run that was broken off go first.
# Their tools are looked up in PATH.
molecule: $(VENV)/.dev
	@.ci/need fleet
	PATH="$(CURDIR)/$(BIN):$$PATH"; export PATH; molecule destroy && molecule test --all

bench: $(VENV)/.d1fleet
	@.ci/need test
	$(BIN)/python -m bench $(BENCH_ARGS)

clean:
	$(MAKE) -C examples clean
	rm -rf .ansible .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache dist
	rm -rf $(VENV)

# Dependencies exactly as locked, checked by hash; then this checkout, which needs nothing more.
$(VENV)/.d1fleet: $(LOCK)/run.txt $(LOCK)/build.txt pyproject.toml | $(BIN)/python
	@echo 'setting up $(VENV), which takes a minute the first time'
	@$(BIN)/python -m pip install -q --require-hashes -r $(LOCK)/run.txt -r $(LOCK)/build.txt
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.registry: $(LOCK)/registry.txt $(VENV)/.d1fleet
	@$(BIN)/python -m pip install -q --require-hashes -r $(LOCK)/registry.txt
	@touch $@

$(VENV)/.dev: $(LOCK)/dev.txt $(VENV)/.d1fleet
	@$(BIN)/python -m pip install -q --require-hashes -r $(LOCK)/dev.txt
	@touch $@

$(BIN)/python:
	@.ci/need demo
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }  # half of one would be taken for a whole one

# With universal markers, so that one lock serves every Python that we support, and without the index's address.
LOCK_PIP = .cache/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade
lock: | $(BIN)/python
	$(BIN)/python -m venv .cache/lock
	.cache/lock/bin/python -m pip install -q uv
	$(LOCK_PIP) -o $(LOCK)/run.txt pyproject.toml
	$(LOCK_PIP) -o $(LOCK)/registry.txt --extra registry pyproject.toml
	$(LOCK_PIP) -o $(LOCK)/dev.txt --extra dev pyproject.toml
	$(LOCK_PIP) -o $(LOCK)/build.txt $(LOCK)/build.in
