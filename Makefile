# Every target works on a fresh clone: it makes .venv and installs what it needs there, once.
# pip's own settings apply, PIP_CONSTRAINT among them. `make help` lists the targets.

PYTHON ?= python3
ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
SAY := @printf '\n==> %s\n'

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs venv clean
# Two pips at once would spoil one environment.
.NOTPARALLEL:

help: ## list the targets
	@printf 'usage: make TARGET [PYTHON=python3.12] [ARGS="..."]\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-6s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.package ## impute simulated data with a known truth; results go to demo/
	$(SAY) 'scgacl demo --out demo $(ARGS)'
	@$(VENV)/bin/scgacl demo --out demo $(ARGS)

test: $(VENV)/.test ## run the tests, e.g. with ARGS="-k posterior"
	$(SAY) 'pytest $(ARGS)'
	@$(RUN) -m pytest $(ARGS)

lint: $(VENV)/.lint ## check style and formatting
	$(SAY) 'ruff check, ruff format --check'
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

docs: $(VENV)/.docs ## build the documentation into docs/_build/html; a warning is an error
	$(SAY) 'sphinx-build -W'
	@$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html
	@printf '\nOpen docs/_build/html/index.html\n'

venv: $(VENV)/.made ## make an empty .venv, e.g. to install a particular build of PyTorch first

clean: ## remove .venv, demo/ and everything that was built
	rm -rf $(VENV) demo build dist docs/_build docs/generated docs/jupyter_execute
	rm -rf .pytest_cache .ruff_cache .hypothesis lightning_logs scvi_log
	find src tests docs benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

# --- .venv: a stamp says what is installed; a newer pyproject.toml asks for it again -------------------------------

$(VENV)/.made:
	$(SAY) 'Making $(VENV)'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed; name one with PYTHON=, e.g. make test PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Editable, so that a change of the code needs no new installation.
$(VENV)/.package: pyproject.toml $(VENV)/.made
	$(SAY) 'Installing the package into $(VENV) (the first time some minutes: PyTorch is large)'
	$(PIP) install --editable .
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.made
	$(SAY) 'Installing the package and its tests into $(VENV) (the first time some minutes: PyTorch is large)'
	$(PIP) install --editable '.[test]'
	@touch $(VENV)/.package $@

$(VENV)/.docs: pyproject.toml $(VENV)/.made
	$(SAY) 'Installing the package and Sphinx into $(VENV)'
	$(PIP) install --editable '.[doc]'
	@touch $(VENV)/.package $@

# Style needs ruff alone, not the package.
$(VENV)/.lint: pyproject.toml $(VENV)/.made
	$(SAY) 'Installing ruff into $(VENV)'
	$(PIP) install 'ruff>=0.9'
	@touch $@
