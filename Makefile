# Every target sets itself up: the virtual environment is made once, and again when setup.cfg changes.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export TF_CPP_MIN_LOG_LEVEL ?= 3

PAPERS := $(notdir $(patsubst %/recipe.py,%,$(wildcard experiments/*/recipe.py)))

.PHONY: help install test lint format notebooks clean $(addprefix reproduce-,$(PAPERS))

help:
	@echo "make reproduce-PAPER [DATA=dir] [PROFILE=quick|paper] [OUT=dir] [SET=\"train.epochs=2 ...\"]"
	@echo "    PAPER: $(PAPERS)"
	@echo "    DATASET=cvc|isic: which of the two data sets of iacnn"
	@echo "    without DATA: a synthetic data set and the quick profile, minutes on two CPU cores"
	@echo "make test        all tests"
	@echo "make lint        ruff, check and format check"
	@echo "make notebooks   execute the notebooks again"
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
	@$(BIN)/python -m experiments $* $(if $(DATASET),--dataset $(DATASET)) $(if $(DATA),--data "$(DATA)") $(if $(PROFILE),--profile $(PROFILE)) $(if $(OUT),--out "$(OUT)") $(foreach s,$(SET),--set '$(subst ','\'',$(s))')

reproduce-%:
	@echo "No paper '$*'. There are: $(PAPERS)"; exit 2

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(READY)
	$(BIN)/python -m notebooks.execute

clean:
	rm -rf $(VENV) build *.egg-info
