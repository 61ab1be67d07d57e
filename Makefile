# `make lab` opens the lab, `make test` checks it, `make help` lists the rest.
# Everything is installed into .venv; nothing outside this folder is changed.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
LAB_ARGS ?=
# For pip: a proxy, a mirror. TORCH_ARGS goes to torch's own installation, where the address of a
# build without CUDA (a tenth of the size) saves a machine without a GPU some gigabytes.
PIP_ARGS ?=
TORCH_ARGS ?=
# pip compiles one file after the other; all cores at once take half of the time, or less.
PIP_INSTALL := $(PY) -m pip install --disable-pip-version-check --no-input --no-compile \
	--constraint constraints.txt $(PIP_ARGS)
# Some packages bring a file that is not meant for every version of Python.
# Their own tests are a quarter of all code, and nobody runs them here.
COMPILE := $(PY) -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help lab doctor test test-unit test-notebooks test-browser class notebooks record bench check format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' \
		| awk -F'|' '{printf "make %-16s%s\n", $$1, $$2}'

lab: $(VENV)/.installed ## open JupyterLab on the first notebook (LAB_ARGS="--no-browser --port=8899")
	$(PY) -m jupyterlab notebooks/00-start-here.ipynb $(LAB_ARGS)

doctor: $(VENV)/.installed ## look whether this computer is ready for the notebooks
	@$(PY) -m labkit doctor

# Every part runs even when an earlier one failed: one look at the output shows all that is broken.
# One after the other: with the browser beside them, unit tests that ask for an answer within half a
# second do not get it.
test: $(VENV)/.installed-test ## unit tests, doctests, notebooks (nbval), browser
	@failed=""; \
	for part in test-unit test-notebooks test-browser; do \
		$(MAKE) --no-print-directory $$part || failed="$$failed $$part"; \
	done; \
	if [ -n "$$failed" ]; then echo "make test: FAILED:$$failed"; exit 1; fi; \
	echo "make test: passed"

# Two at once, the longest files first; then those that compare what clocks say.
LONGEST := $(addprefix tests/test_,mutation.py parallel.py quantize.py dask.py panel.py runtimes.py \
	readme.py notebook_guards.py execute_notebooks.py)
ALONE = $(shell grep -l 'mark\.alone' tests/test_*.py)

test-unit: $(VENV)/.installed-test ## unit tests and doctests
	@set -x; failed=0; \
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" \
		--ignore=tests/browser $(LONGEST) tests labkit || failed=1; \
	$(PY) -m pytest -m alone $(ALONE) || failed=1; \
	exit $$failed

# One after the other: beside another notebook, some claims about all cores stay open.
# Records of a class that somebody collects are neither shown nor added to.
test-notebooks: $(VENV)/.installed-test ## every cell of every notebook against its saved output
	@set -x; LABKIT_RECORDS= $(PY) -m pytest --nbval notebooks teacher

# Two at once, each with a server and a browser of its own: one waits half of the time.
test-browser: $(VENV)/.installed-test ## real JupyterLab in real Chromium
	$(PY) -m pytest -n 2 tests/browser

class: $(VENV)/.installed-test ## eight whole notebooks at once, half a core each: some ten minutes
	LABKIT_WHOLE_CLASS=1 $(PY) -m pytest -rP tests/test_class.py

notebooks: $(VENV)/.installed ## run all notebooks on clean kernels and save them
	LABKIT_RECORDS= $(PY) tools/execute_notebooks.py notebooks teacher

record: $(VENV)/.installed ## measure the notebooks' experiments on this machine, into data/recorded
	$(PY) tools/record.py

bench: $(VENV)/.installed-bench ## the lab's figures beside those of its peers
	$(PY) -m bench

check: $(VENV)/.installed-dev ## format, lint, types
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m mypy

format: $(VENV)/.installed-dev ## format, and mend what the linter can
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

clean: ## remove caches and artifacts; .venv stays
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/browser/artifacts
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that venv makes: where it is there, the environment is whole.
$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "error: '$(PYTHON)' was not found. Install Python 3.11 or newer, or name it:" \
			"make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: labkit needs Python 3.11 or newer, and '$(PYTHON)' is" \
			"$$($(PYTHON) -V 2>&1). Name a newer one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: '$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu:" \
			"apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: whatever build TORCH_ARGS chose is there when the rest is resolved.
$(VENV)/.torch: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(PIP_INSTALL) $(TORCH_ARGS) torch
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP_INSTALL) --editable '.[quantize,prune,cluster]'
	@$(COMPILE)
	@touch $@

# All at once: each time pip looks at everything that is there.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/.torch
	$(PIP_INSTALL) --editable '.[quantize,prune,cluster,$*]'
	@$(COMPILE)
	@touch $(VENV)/.installed $@
