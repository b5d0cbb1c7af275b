# Every target sets itself up: the virtual environment is made once, and again when setup.cfg changes.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export TF_CPP_MIN_LOG_LEVEL ?= 3

PAPERS := $(notdir $(patsubst %/recipe.py,%,$(wildcard experiments/*/recipe.py)))

.PHONY: help install test test-slow mutations coverage lint format tables notebooks docs benchmarks wheel clean $(addprefix reproduce-,$(PAPERS))

help:
	@echo "make reproduce-PAPER [DATA=dir] [PROFILE=quick|paper] [OUT=dir] [SET=\"train.epochs=2 ...\"]"
	@echo "    PAPER: $(PAPERS)"
	@echo "    SEEDS=3: trainings of each network; FOLD=K|all, SPLITS=file: folds of data.folds or of a file"
	@echo "    DEVICES=N|all, SCHEDULER=local:N or an address: docs/scaling.md"
	@echo "    DATASET=cvc|isic: which of the two data sets of iacnn"
	@echo "    without DATA: a synthetic data set and the quick profile, minutes on two CPU cores"
	@echo "make test        the fast tier: at most 5 minutes on two quiet cores"
	@echo "make test-slow   the other tests: killed processes, exports, notebooks (ARGS=... for both)"
	@echo "make mutations [PAPER=...]  break each statement that a ledger calls exact, on purpose"
	@echo "make coverage    lines and branches that the fast tier reaches"
	@echo "make lint        ruff, mypy and import-linter"
	@echo "make format      mend what ruff can mend"
	@echo "make tables      write the README's tables again"
	@echo "make notebooks   execute the notebooks again"
	@echo "make docs        the documentation site, in build/site"
	@echo "make benchmarks  the tables of benchmarks/README.md, in two hours or so (ARGS=--torch-python=...)"
	@echo "make wheel       the package as a wheel and as source, in dist (REPOSITORY=address for its links)"
	@echo "make install     only the virtual environment in $(VENV)"

install: $(READY)

$(READY): setup.cfg setup.py
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or later not found as '$(PYTHON)'. Install it, or name it: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"found Python {v[0]}.{v[1]}, expected 3.11 or later. Name another: make PYTHON=/path/to/python3.12 ...")'
	@echo "Setting up $(VENV) (about a minute, 3.2 GB) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@

$(addprefix reproduce-,$(PAPERS)): reproduce-%: $(READY)
	@$(BIN)/python -m experiments $* $(if $(DATASET),--dataset $(DATASET)) $(if $(DATA),--data "$(DATA)") $(if $(PROFILE),--profile $(PROFILE)) $(if $(OUT),--out "$(OUT)") $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FOLD),--fold $(FOLD)) $(if $(SPLITS),--splits "$(SPLITS)") $(if $(DEVICES),--devices $(DEVICES)) $(if $(SCHEDULER),--scheduler $(SCHEDULER)) $(foreach s,$(SET),--set '$(subst ','\'',$(s))')

reproduce-%:
	@echo "No paper '$*'. There are: $(PAPERS)"; exit 2

# tests/conftest.py keeps the tests that share a costly fixture on one worker.
PYTEST := $(BIN)/python -m pytest -n 2

test: $(READY)
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(READY)
	$(PYTEST) -m slow $(ARGS)

mutations: $(READY)
	$(BIN)/python -m experiments.mutations $(PAPER)

coverage: $(READY)
	$(PYTEST) -m "not slow" --cov --cov-report=term:skip-covered $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tables: $(READY)
	$(BIN)/python -m experiments.tables

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(READY)
	$(BIN)/python -m notebooks.execute

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	$(BIN)/python -m website.check build/site

benchmarks: $(READY)
	$(BIN)/python benchmarks/all.py $(ARGS)

# The wheel is made of the source distribution, in a folder of its own, so that build/ of earlier days is
# not in it. REPOSITORY is where links of README lead on a registry; without it they become words.
wheel: export REPOSITORY := $(REPOSITORY)
wheel: $(READY)
	rm -rf dist
	$(BIN)/python -c 'import setuptools.build_meta as backend; backend.build_sdist("dist")'
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist dist/*.tar.gz

clean:
	rm -rf $(VENV) build dist *.egg-info
