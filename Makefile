# The one task runner. `make test` is what CI runs; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE := .cache
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
UV := $(shell command -v uv || echo $(CACHE)/uv/bin/uv)
export UV_PYTHON_PREFERENCE := only-system
export PYTHONPATH := $(CURDIR)

BIN := .venv/bin
PYTEST := $(BIN)/pytest -q
JOBS ?= 2
SOAK_SECONDS ?= 3600

# Clients that others wrote, for the integration tests; peers for the bench.
APT_CLIENTS := curl swaks isync mutt fetchmail mpop getmail6 offlineimap3 libnet-ssleay-perl libio-socket-ssl-perl libsasl2-modules openssl ca-certificates
APT_IMAGE := buildah debootstrap
APT_PEERS := postfix dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# ---- set-up ---------------------------------------------------------------------------------------------------------------

$(CACHE)/uv/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	python3 -m pip --version >/dev/null 2>&1 || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends python3-pip; }
	python3 -m pip install --quiet --disable-pip-version-check --target $(CACHE)/uv uv

.venv/.synced: pyproject.toml uv.lock mailpod/pyproject.toml operator/pyproject.toml | $(filter $(CACHE)/%,$(UV))
	$(UV) sync --frozen --quiet
	@touch $@

setup: .venv/.synced ## Install everything that Python needs into .venv

# One stamp per list of packages: nothing is asked of apt when the list has been installed.
define apt_install
$(CACHE)/apt-$(1): Makefile
	@mkdir -p $(CACHE)
	@if ! dpkg -s $(2) >/dev/null 2>&1; then $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $(2) >$(CACHE)/apt-$(1).log; fi
	@touch $$@
endef
$(eval $(call apt_install,clients,$(APT_CLIENTS)))
$(eval $(call apt_install,image,$(APT_IMAGE)))
$(eval $(call apt_install,peers,$(APT_PEERS)))

# ---- the main job ---------------------------------------------------------------------------------------------------------

demo: setup ## Start a real S3 server and two mail pods from examples/, send, read, stay up until Ctrl-C
	exec $(BIN)/python -m tests.demo

demo-check: setup ## The same, kill one pod during a burst, count that nothing was lost, stop
	$(BIN)/python -m tests.demo --check

# ---- checks ---------------------------------------------------------------------------------------------------------------

test: lint types arch unit sim integration ## All that CI runs

lint: setup ## Style and hygiene (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Strict types (mypy)
	$(BIN)/mypy

arch: setup ## Layers (import-linter)
	$(BIN)/lint-imports

unit: setup ## Unit tests, with coverage
	$(PYTEST) -n $(JOBS) tests/unit --cov --cov-report=term:skip-covered

sim: setup ## The seeded simulation of the store: 2,000 seeds, and the proof that it can fail
	$(PYTEST) -n $(JOBS) tests/sim

integration: setup $(CACHE)/apt-clients $(CACHE)/apt-image ## Real S3, real clients, real processes, the image
	$(PYTEST) tests/integration

# ---- slower ---------------------------------------------------------------------------------------------------------------

soak: setup ## The simulation for SOAK_SECONDS (an hour)
	$(BIN)/python -m tests.sim.run --seconds $(SOAK_SECONDS) --processes $(JOBS)

bench: setup $(CACHE)/apt-peers ## Beside Postfix and Dovecot on this machine; writes docs/PERFORMANCE.md
	$(BIN)/python -m bench

fmt: setup ## Format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove everything that was made
	rm -rf .venv $(CACHE) .demo .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.PHONY: help setup demo demo-check test lint types arch unit sim integration soak bench fmt clean
