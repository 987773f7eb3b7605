# make demo and make test need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= demo-out

.PHONY: demo test test-slow lint bench docs docs-all clean

# torch first and alone: a bare "torch" would pull gigabytes of CUDA where only a CPU is.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[run,dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## advise, quantize, verify, measure and report on the embedded model
	$(BIN)/qadvise --model demo --mem 1GB --hardware cpu --objective memory --max-loss 5% -o demo.yaml
	$(BIN)/qrun demo.yaml --output $(OUT) --overwrite
	@echo "report: $(OUT)/report.md"

test: $(STAMP)  ## the fast tests
	$(BIN)/python -m pytest -q -n 2

test-slow: $(STAMP)  ## the slow tests as well
	$(BIN)/python -m pytest -q -m 'not gpu'

lint: $(STAMP)  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)  ## the figures of the README
	$(BIN)/python benchmarks/cold_start.py
	$(BIN)/python benchmarks/quality.py demo w8a16:rtn w4a16:rtn w4a16:gptq w3a16:rtn w3a16:gptq w2a16:rtn w2a16:gptq

docs: $(STAMP)  ## every generated file: compiled data, schemas, pages of the rules, outputs shown in docs/advisor.md
	$(BIN)/python tools/generate.py

docs-all: $(STAMP)  ## the prediction as well, fitted again (a minute)
	$(BIN)/python tools/generate.py --all

clean:
	rm -rf $(VENV) $(OUT) demo.yaml
