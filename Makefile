# Every target works from a fresh clone; `make help` lists them. CI calls `make test`, nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && command -v $$p && break; done)
PY := .venv/bin/python
# tests start a hundred interpreters: what the first has compiled the others read
unexport PYTHONDONTWRITEBYTECODE
INSTALLED := .venv/.installed

.PHONY: help setup demo test lint types imports docs pytest torture soak bench bench-peers lock clean

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## make .venv with exactly what requirements.lock names

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "K2 needs Python 3.11, 3.12 or 3.13; none was found (Debian: apt install python3 python3-venv; elsewhere set PYTHON=/path/to/python3.12)"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: apt install python3-venv (Debian, Ubuntu)"; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(INSTALLED)

demo: setup  ## the guided tour on generated data: ingest, check, query; stays up until Ctrl-C
	$(PY) -m k2_cli.main demo

test: setup lint types imports docs pytest  ## every test, lint, type check and import contract

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: setup
	$(PY) -m mypy

imports: setup
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

docs: setup
	$(PY) -m k2_cli.main docs --check

pytest: setup
	$(PY) -m pytest

SEEDS ?= 1000000
KILLS ?= 10000
EXAMPLES ?= 2000
ANSWERS ?= 5000
torture: setup  ## the long forms: EXAMPLES of each order of deliveries, ANSWERS read twice, SEEDS simulated schedules, KILLS kill -9
	K2_TEST_EXAMPLES=$(EXAMPLES) $(PY) -m pytest --timeout 14400 k2_tests/core/test_order_independence.py
	$(PY) -m k2_tests.api.examiner --cases $(ANSWERS)
	$(PY) -m k2_tests.api.fuzz --examples 500
	$(PY) -m k2_tests.simulation --seeds 0:$(SEEDS) --coverage
	$(PY) -m k2_tests.crash.torture --kills $(KILLS) --lanes 4 --points

MINUTES ?= 60
FEED_KILLS ?= 50
BATCHES ?= 2000
READ_MINUTES ?= 10
soak: setup  ## the live feed for MINUTES, every fault in its turn, FEED_KILLS kill -9; BATCHES with upkeep; a crowd of readers
	$(PY) -m k2_tests.soak.feed --minutes $(MINUTES) --kills $(FEED_KILLS)
	$(PY) -m k2_tests.soak.upkeep --batches $(BATCHES)
	$(PY) -m k2_tests.soak.answers --minutes $(READ_MINUTES) --kills 2

bench: setup  ## every bench in one run, as Markdown
	$(PY) -m k2_tests.bench

RECORDS ?= 2000000
bench-peers: setup  ## the same records through K2, Spark, Kafka Connect and plain Python (needs Java 17 and Maven)
	$(PY) -m k2_tests.bench.peers --records $(RECORDS)

lock:  ## resolve requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate -o requirements.lock

clean:  ## remove .venv and everything the embedded stack keeps in .k2
	rm -rf .venv .k2
