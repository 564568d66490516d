# make demo   talk to the model        make test   run the tests        make lab   open the notebooks
# Everything lives in .venv; the second time only what changed is done again.

PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
SAY := @printf '\n== %s\n'
# one line for each thing that is fetched or built, so that nobody wonders whether it still works
INSTALL = @$(BIN)/python -m pip install --disable-pip-version-check --no-input --constraint constraints.txt --editable $(1) \
  | awk '/^ *(Downloading|Using cached|Building|Installing)/ { print substr($$0, 1, 100); fflush() }'

.PHONY: help demo test check lab notebooks student-notebooks setup clean
.DEFAULT_GOAL := help

help:  ## show this list
	@echo "make demo    starts the chat and prints its address (the first time it builds the environment: some minutes)"
	@echo "make test    runs the tests                PYTEST='-k qformer -x' hands options to pytest"
	@echo "make check   checks style and formatting with ruff; changes nothing"
	@echo "make lab     opens JupyterLab on the notebooks"
	@echo "make notebooks   runs them all again and keeps what came out     ARGS='04 05' chooses"
	@echo "make student-notebooks   writes notebooks/student/, the same without outputs"
	@echo "make setup   builds the whole environment and stops there"
	@echo "make clean   removes the environment"
	@echo
	@echo "Another Python: make demo PYTHON=python3.13      Other weights: make demo ARGS='--model FOLDER_OR_HUB_NAME'"

.venv/created:
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or say: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "blip2_lab needs Python 3.11 or newer, and '$(PYTHON)' is older. Say for example: make PYTHON=python3.12"; exit 1; }
	$(SAY) "Making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv || { echo "Python cannot make virtual environments here. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

.venv/ready-demo: .venv/created pyproject.toml constraints.txt
	$(SAY) "Installing blip2_lab with torch, transformers and gradio (some minutes the first time, then never again)"
	$(call INSTALL,.)
	@touch $@

.venv/ready-lab: .venv/ready-demo
	$(SAY) "Installing JupyterLab, its widgets and matplotlib"
	$(call INSTALL,'.[teach]')
	@touch $@

.venv/ready-dev: .venv/ready-demo
	$(SAY) "Installing what the tests and the notebooks need"
	$(call INSTALL,'.[dev]')
	@touch .venv/ready-lab $@

setup: .venv/ready-dev  ## everything, for developers
	$(SAY) "The environment is ready in .venv"

demo: .venv/ready-demo  ## the chat
	$(SAY) "Starting the chat (stop it with Ctrl+C)"
	@$(BIN)/python app.py $(ARGS)

test: .venv/ready-dev  ## the tests, in two processes of one thread each
	$(SAY) "Running the tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST)

check: .venv/ready-dev  ## style and formatting, without changing a file
	$(SAY) "Checking style and formatting"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# the root is this folder, so that links from a notebook to docs/ work; it opens notebooks/
# in a container one is often root, as whom Jupyter does not start without being told
lab: .venv/ready-lab  ## the notebooks
	$(SAY) "Opening JupyterLab on the notebooks (stop it with Ctrl+C)"
	@$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

notebooks: .venv/ready-dev  ## run every notebook from top to bottom and keep its outputs
	$(SAY) "Running the notebooks"
	@$(BIN)/python notebooks/run_all.py $(ARGS)
	@$(BIN)/python notebooks/student_copies.py

student-notebooks: .venv/ready-dev  ## the students' copies, without outputs
	@$(BIN)/python notebooks/student_copies.py

clean:
	rm -rf .venv
