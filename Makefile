# make demo    a virtual environment and a first run of real functions on this machine
# make test    everything that a change must pass
# make lint    the same without the tests
# make bench   all benchmarks, beside their peers, in a virtual environment of their own
#
# PYTHON=python3.12 make test   with another interpreter (3.11 or newer)

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BENCH := .venv-bench
PIP := -m pip install -qq --disable-pip-version-check

.PHONY: demo test lint bench clean

demo: $(VENV)/.demo
	$(VENV)/bin/afarm demo $(DEMO)

test: $(VENV)/.test
	@.ci/prepare
	@$(MAKE) --no-print-directory lint
	$(VENV)/bin/python -m pytest $(TESTS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

bench: $(BENCH)/.bench
	$(BENCH)/bin/python -m benchmarks all $(BENCHMARKS)

clean:
	rm -rf $(VENV) $(BENCH) build dist

# Each stamp is as old as the installation it stands for: only a changed pyproject.toml renews it.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "installing afarm and what the demonstration needs into $(VENV)"
	$(VENV)/bin/python $(PIP) -e '.[progress,demo]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) -e '.[test,demo]'
	@touch $@

$(BENCH)/.bench: pyproject.toml | $(BENCH)/bin/python
	$(BENCH)/bin/python $(PIP) -e '.[bench]'
	@touch $@

$(VENV)/bin/python $(BENCH)/bin/python:
	@test -n "$(PYTHON)" || { echo "afarm needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(@D)/..
