# `make demo` and `make test` work on a fresh Linux machine with Python 3.11 or 3.12 and make.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
DEMO_BUILD := build/kobart-fp32
REPORTS := build/reports
FULL_SIZE := build/compare/kobart-base-random-int8

.DEFAULT_GOAL := help
.PHONY: help demo test test-all chaos soak speed check format benchmark reports gpu clean

help:  ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(DEMO_BUILD)/manifest.json  ## a sample dialogue and its summary, from a real Triton server
	@$(BIN)/python examples/demo.py $(DEMO_BUILD)

# Two tests at a time, but one where a server is measured and its cores are not to be shared. Two
# PyTorch processes with a thread on each core wait for each other: ten times as slow as with one.
define run_tests_but
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not triton and not ($(1))" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m "triton and not ($(1))"
endef

test: check  ## lint, types and all tests but the slow ones
	$(call run_tests_but,slow or chaos or soak or speed)

test-all: check  ## every test but chaos, soak and speed
	$(call run_tests_but,chaos or soak or speed)

chaos: $(INSTALLED)  ## kills, cuts and cancellations by the hundred, on the real server
	$(BIN)/python -m pytest -m chaos

soak: $(INSTALLED)  ## 20,000 requests: no memory, thread or file is lost
	$(BIN)/python -m pytest -m soak

speed: $(INSTALLED)  ## what is promised in seconds, on a machine that does nothing else
	$(BIN)/python -m pytest -m speed

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)  ## rewrite the code to the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

benchmark: $(INSTALLED)  ## tokens per second against the peers, full size: docs/performance.md
	$(BIN)/python -m benchmarks.generation --all
	$(BIN)/python -m benchmarks.guide

gpu: $(INSTALLED)  ## build and measure TensorRT plans on this GPU: docs/tensorrt.md
	@$(BIN)/python -m benchmarks.gpu --check-gpu
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[serve,build,tensorrt]'
	$(BIN)/python -m benchmarks.gpu

reports: $(DEMO_BUILD)/manifest.json  ## every report of docs/benchmarks.md, and its tables
	$(BIN)/kobart-evaluate $(DEMO_BUILD) --data assets/kobart-mini/test.jsonl --output $(REPORTS)/evaluate
	$(BIN)/kobart-bench compare --standard --output $(REPORTS)/compare
	$(BIN)/kobart-bench compare --standard --checkpoint kobart-base-random --documents 8 --repeats 3 \
		--min-new-tokens 32 --max-new-tokens 32 --output $(REPORTS)/compare-full-size
	$(BIN)/kobart-bench serve $(FULL_SIZE) --num-beams 1 --min-new-tokens 20 --max-new-tokens 20 \
		--target-ms 2000 --output $(REPORTS)/serve
	$(BIN)/kobart-bench engine $(FULL_SIZE) --batch-sizes 1,8 --source-lengths 64,256,1024 --output $(REPORTS)/engine
	$(BIN)/kobart-bench profile $(FULL_SIZE) --min-new-tokens 32 --max-new-tokens 32 --output $(REPORTS)/profile
	$(BIN)/python -m benchmarks.documented $(REPORTS)/*/report.json

$(DEMO_BUILD)/manifest.json: $(INSTALLED) $(wildcard assets/kobart-mini/* builders/*.py kobart_runtime/*.py model_repository/*/config.pbtxt model_repository/*/1/model.py)
	$(BIN)/kobart-build --output $(DEMO_BUILD) --force

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[serve,build,adapter,openvino,tensorrt-check,report,peers,morphemes,parquet,dev]'
	touch $@

clean:  ## remove the environment and all builds
	rm -rf .venv build
