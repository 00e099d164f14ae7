# Everything runs in .venv, which is made on first use and refreshed when its inputs change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# torch from PyPI carries CUDA on Linux; without a GPU the CPU build is a tenth of the download:
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=
# Folds and epochs of the demonstration: empty means the defaults, CI passes a small budget
DEMO_FLAGS ?=
# Rows and options of `lossmith bench`: empty means all that the machine can run
BENCH_FLAGS ?=
# One thread per test process: two processes share the cores already
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow test-gpu lint bench docs clean

demo: $(STAMP)
	mkdir -p out
	env -u OMP_NUM_THREADS $(BIN)/lossmith choose diabetes --metric mae --html out/report.html $(DEMO_FLAGS)
	@echo "The page is at $(CURDIR)/out/report.html"

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not gpu"

# Inductor generates and compiles C++ for every loss: minutes, so it has a target of its own
test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "slow and not gpu"

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -q -m gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright -p pyproject.toml
	$(BIN)/lint-imports
	$(BIN)/python -m lossmith.core.exports --check
	$(BIN)/python docs/build.py --check

# Peers are measured where they are installed: $(BIN)/pip install -c constraints.txt -e ".[bench]"
bench: $(STAMP)
	$(BIN)/lossmith bench --json benchmarks/results $(BENCH_FLAGS)
	$(BIN)/python docs/build.py

docs: $(STAMP)
	$(BIN)/python docs/build.py

clean:
	rm -rf out build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt \
	  -e ".[lab,datasets,skorch,test,dev]"
	touch $@
