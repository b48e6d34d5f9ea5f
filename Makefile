# Two commands for a newcomer: `make demo` and `make test`. Each does all its own set-up.

# What pip installs as torch. The project needs torch>=2.7; pin or replace it here, e.g. `make test TORCH=torch==2.11.0`.
TORCH  ?= torch==2.13.0
PYTHON ?= python3
VENV   ?= .venv
MESH   ?=
# Processes that run the tests.
JOBS   ?= 2
OUT    ?= out

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint types floors docs examples bench clean help

help:            ## list the targets
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# torch goes in first and alone: any other torch requirement could pull another build.
$(VENV)/.base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) --editable '.[docs]'
	@touch $@

demo: $(VENV)/.base      ## turn a mesh into every representation and back (MESH=path for your own)
	$(BIN)/python -m voxgen.demo $(if $(MESH),"$(MESH)") --out "$(OUT)"

test: $(VENV)/.dev       ## the whole CPU test suite
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

lint: $(VENV)/.dev       ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev      ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

floors: $(VENV)/.dev     ## import-linter: a lower floor never imports a higher one
	$(BIN)/lint-imports

docs: $(VENV)/.docs      ## build the site, strictly
	$(BIN)/mkdocs build --strict --quiet

examples: $(VENV)/.dev   ## every example at its smallest size
	@mkdir -p "$(OUT)/examples"; printf '%s\n' examples/*.py | OMP_NUM_THREADS=1 xargs -P $(JOBS) -I{} sh -c ' \
	  said=$$($(BIN)/python {} --smallest --out "$(OUT)/examples/$$(basename {} .py)" 2>&1); status=$$?; \
	  printf "== %s\n%s\n" {} "$$said"; exit $$status'

bench: $(VENV)/.dev      ## the benchmarks (minutes)
	@set -e; for script in benchmarks/*.py benchmarks/ablations/*.py; do echo "== $$script"; OMP_WAIT_POLICY=passive $(BIN)/python "$$script"; done

clean:           ## remove what the targets made, compiled kernels too
	rm -rf $(VENV) site out
	find src -name '*.nb[ic]' -delete
