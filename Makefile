# `make demo` and `make test` are all that a newcomer needs; both install first. PYTHON=... chooses the Python.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install test company demo lint format schemas bench lock clean

BIN := .venv/bin
STAMP := .venv/.installed
PYTHONS ?= python3.11 python3.12

help:            ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

install: $(STAMP)  ## Make .venv with the command .venv/bin/kaohe

# A changed requirement, package description or compiled module, or a PYTHON other than the last one asked for, installs
# again.
$(STAMP): requirements/build.txt requirements/dev.txt pyproject.toml tools/check_machine.sh tools/install.sh \
		$(wildcard services/kaohe/core/*.pyx services/kaohe/core/*.pxd) \
		$(if $(filter-out $(shell cat $(STAMP) 2>/dev/null),$(PYTHON)),.python-asked-for)
	@rm -f $(STAMP)
	@bash tools/install.sh
	@echo '$(PYTHON)' > $(STAMP)

.PHONY: .python-asked-for
.python-asked-for:

# Tests that only compute share the processors; those with brokers and timeouts come after them, one by one.
COMPUTING := tests/unit tests/packs tests/replay tests/simulation
WAITING := tests/contract tests/integration

test: install    ## Run all tests (ARGS=... some); those that need a program which is not here say so and are skipped
ifeq ($(ARGS),)
	$(BIN)/pytest --numprocesses=auto --maxprocesses=8 --dist=loadgroup $(COMPUTING)
	$(BIN)/pytest $(WAITING)
else
	$(BIN)/pytest $(ARGS)
endif

company: install ## Run 300 simulated people for 14 months to exported pay, and compare all with an independent calculation
	KAOHE_COMPANY=300x14 $(BIN)/pytest tests/simulation/test_company.py -rP $(ARGS)

demo: install    ## Show the whole way of an event on this machine, in a minute and a half
	$(BIN)/kaohe demo

lint: install    ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## Format the code and put right what can be put right by rule
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schemas: install ## Write schemas/ from the structs of events and decisions
	$(BIN)/python -m kaohe.schemas

bench: install   ## Measure decode, core, worker, a naive app and the transport (needs Java 17 and Maven)
	$(BIN)/python -m bench $(ARGS)

lock: install    ## Pin the requirements anew for all PYTHONS (ARGS=--upgrade takes newer versions)
	$(BIN)/python tools/lock_requirements.py $(ARGS) $(PYTHONS)

clean:           ## Remove .venv and everything else that was made
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis services/kaohe.egg-info
	rm -f services/kaohe/core/*.c services/kaohe/core/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
