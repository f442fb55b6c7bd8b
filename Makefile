# Each target does its own set-up in .venv; a second call installs nothing.
#
#   make quickstart   train and compare the methods on embedded data, in minutes
#   make tldr         the same with Flan-T5 and TL;DR, which it downloads: for one GPU
#   make test         the test suite, but for what takes longest
#   make test-slow    what takes longest
#   make test-distributed   what starts many processes, each with its own devices
#   make test-slurm   jobs under a SLURM that it starts, where one is installed
#   make test-plan    plans for TPUs and GPUs that are not here, by their compilers
#   make lint         what continuous integration checks besides: style, spelling, types
#   make docs         the documentation as a site, in site/
#   make test-t5x T5X=...   what runs under T5X; T5X is a folder or an address for pip

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compiling every .pyc of TensorFlow up front would double the time of the set-up.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
IN_TWO := --numprocesses=2 --dist=loadfile --no-loadscope-reorder

.PHONY: quickstart tldr test test-slow test-distributed test-slurm test-plan test-t5x lint docs clean

quickstart: $(VENV)/.installed
	$(BIN)/python -m launch.quickstart

tldr: $(VENV)/.installed-tldr
	$(BIN)/python -m launch.tldr

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow and not slurm" $(IN_TWO)

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow $(IN_TWO)

test-distributed: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/distributed

test-slurm: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slurm

test-plan: $(VENV)/.installed-test $(VENV)/.installed-plan
	$(BIN)/python -m pytest tests/launch/test_plan.py tests/planning

# T5X asks for other versions than ours and works with ours: nothing that it lists is installed.
T5X = $(error expected T5X=FOLDER or T5X=git+https://github.com/google-research/t5x@cc342d4)
test-t5x: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
	  --requirement constraints-t5x.txt '$(T5X)'
	$(BIN)/python -m pytest tests/t5x

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The pages are in site/; read them with $(BIN)/mkdocs serve."

clean:
	rm -rf $(VENV) .cache build dist site *.egg-info

# The stamps record what is installed. The library alone is enough to train; the test extra adds
# PyTorch and transformers, the independent implementations that the tests compare with.
$(VENV)/.installed: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "po_jax needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@echo "Setting up $(VENV): a minute or two, once."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test $(VENV)/.installed-docs $(VENV)/.installed-plan $(VENV)/.installed-tldr: $(VENV)/.installed-%: $(VENV)/.installed
	$(INSTALL) --editable '.[$*]'
	@touch $@
