# make demo       paint sample images, cache a teacher's features, train two students, print one table; the base package is enough
# make test       everything that must hold: style, types, import rules, units, journeys (under twelve minutes on two cores)
# make unit       the same without style, types and import rules
# make quick PART=store   the tests of one folder (or of several), without journeys: under a minute
# make coverage   which lines the suite runs, as pages in build/coverage
# make test-slow  kill sweeps, full-size teachers, real data
# make attack     thousands of hostile files and command lines; prints class, tried, mishandled
# make truth      what people bring, beside the truth; prints case, read, right
# make lint       style, types and import rules alone
# make keywords   the signatures of functions with options by keyword, from the configs
# make docs       the documentation as pages, in build/site
# make changelog  what changelog.d holds, by kind
# make gains      the chart of measured gains, from STUDY=study/study.csv into docs/drawings
#
# Each sets up .venv by itself with any Python >= 3.11 and nothing else, and reuses it until pyproject.toml or
# constraints.txt changes. PYTHON=/path/to/python3 picks the interpreter; CONSTRAINTS=lowest.txt installs the lowest versions that
# pyproject.toml allows, CONSTRAINTS=newest.txt whatever there is.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach py,python3 python3.11 python3.12 python3.13 python,\
	$(if $(filter yes,$(shell $(py) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo yes)),$(py))))

CONSTRAINTS ?= constraints.txt

.PHONY: demo test unit quick coverage changelog attack truth test-slow lint docs gains keywords clean
.DEFAULT_GOAL := test

# Of the 21,000 files that come in, a few thousand are ever run: Python compiles those when it does, and must keep what it
# has compiled, or each of the suite's hundreds of processes compiles PyTorch anew. Empty means kept.
export PYTHONDONTWRITEBYTECODE :=

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "difom needs Python >= 3.11 with venv: install one, or make PYTHON=/path/to/python3"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@

lowest.txt: pyproject.toml
	$(PYTHON) tests/lowest_versions.py > $@

newest.txt:
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# One process a core (each with one thread, which conftest.py sees to).
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# Signatures of functions that take options by keyword, after an option has changed.
keywords: $(STAMP)
	$(BIN)/python -c "from difom_cache.base.options import write_keywords; write_keywords('difom_cache', 'difom_train')"

# Types are checked by one core, so that the suite need not wait for them.
test: $(STAMP)
	$(MAKE) --jobs=2 lint unit

unit: $(STAMP)
	$(PYTEST) -m "not slow"

PART ?= store
quick: $(STAMP)
	$(PYTEST) -m "not slow and not journey" $(addprefix tests/,$(PART))

# Of processes that the tests start, too (pyproject.toml).
coverage: $(STAMP)
	$(BIN)/coverage run -m pytest --numprocesses auto --maxprocesses 8 -m "not slow"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report --skip-covered

changelog:
	@for kind in added changed fixed removed; do \
		ls changelog.d/*.$$kind.md >/dev/null 2>&1 && { echo "### $$kind"; cat changelog.d/*.$$kind.md; }; done; true

attack: $(STAMP)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python tests/hostile/attack.py

truth: $(STAMP)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python tests/truth/truth_table.py

test-slow: $(STAMP)
	$(BIN)/pytest -m slow

# Where the tests' environment is not made yet, the demo gets one of its own with the base package alone.
DEMO := $(if $(wildcard $(STAMP)),$(VENV),.venv-demo)
demo: $(DEMO)/.installed
	$(DEMO)/bin/difom-train demo --out demo

.venv-demo/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "difom needs Python >= 3.11 with venv: install one, or make PYTHON=/path/to/python3"; exit 2; }
	@echo "installing the base package into .venv-demo:$$(sed -n 's/^| base | [0-9]* |\(.*\) |$$/\1/p' docs/install.md) on disk (measured: docs/install.md)"
	test -x .venv-demo/bin/python || $(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt -e .
	@touch $@

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

STUDY ?= study/study.csv
gains: $(STAMP)
	$(BIN)/python docs/draw_gains.py $(STUDY) docs/drawings/gains.svg

clean:
	rm -rf $(VENV) .venv-demo lowest.txt newest.txt .coverage* demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
