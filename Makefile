# Two commands do everything: `make demo` and `make test`. Both make the environment first, once.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

.PHONY: help install demo test quick check bench-train bench-eval check-gpu docs help-snapshot trajectory clean

help:
	@echo "make demo         install, and run the quickstart through train, eval and publish"
	@echo "make test         install, and run all tests"
	@echo "make quick        the tests that are quick: while you work"
	@echo "make check        lint, format, types, and the tests of the built wheel"
	@echo "make bench-train  training against TRL's KTOTrainer, into benchmarks/README.md (half an hour on two cores)"
	@echo "make check-gpu    what needs an NVIDIA GPU: tests, and training against TRL, the peak and the memory estimate"
	@echo "make bench-eval   how often intervals hold, and generation beside vLLM's own (half an hour on two cores)"
	@echo "make docs         the recipe's reference and schema, from the code"
	@echo "make trajectory   the training loop's numbers of a tiny run, recorded anew (from a clean tree)"
	@echo "make clean        remove the environment and what was built"

install: .venv/.installed

# Installed again only where the dependencies or the way to install them changed.
.venv/.installed: pyproject.toml install.sh
	PYTHON="$(PYTHON)" bash install.sh
	@touch $@

demo: install
	$(BIN)/kto-release demo

# Files of tests go to one process each, so that what a file's tests share is made once.
test: install
	$(BIN)/kto-release demo --prepare
	$(BIN)/pytest -n 2 --dist loadscope

# Without the small model, vLLM, a browser, and whatever takes seconds.
quick: install
	$(BIN)/pytest -n 2 --dist loadscope -m "not slow and not vllm and not browser" -q

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build && mkdir build
	$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel . > build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	$(BIN)/pip install --quiet --no-deps --no-compile --target build/typed build/wheel/*.whl
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p kto_release
	PYTHONPATH="$(CURDIR)/build/typed" KTO_RELEASE_EXPECTED="$(CURDIR)/build/typed" $(BIN)/pytest -q tests/kto_release tests/templates tests/recipes

bench-train: install
	$(BIN)/python benchmarks/training.py --write benchmarks/README.md

bench-eval: install
	$(BIN)/kto-release demo --prepare
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/generation.py "$${XDG_CACHE_HOME:-$$HOME/.cache}/kto-release/models/HuggingFaceTB--SmolLM2-135M-Instruct" --prompts 16 --max-tokens 48

# Ends with 1 where there is no GPU, a test fails or a target is missed.
check-gpu: install
	$(BIN)/python benchmarks/gpu.py

docs: install
	$(BIN)/python -c "from pathlib import Path; from kto_release import schema; Path('docs/recipe.md').write_text(schema.markdown()); Path('recipes/schema.json').write_text(schema.json_schema())"

help-snapshot: install
	$(BIN)/python -c "import sys; sys.path.insert(0, 'tests/kto_release'); import test_cli; test_cli.SNAPSHOT.write_text(test_cli.helps('$(BIN)/kto-release'))"

trajectory: install
	$(BIN)/python -c "import sys, tempfile, pathlib; sys.path[:0] = ['tests/train', 'tests/support']; import test_trajectory; test_trajectory.record(pathlib.Path(tempfile.mkdtemp()))"

clean:
	rm -rf .venv build dist *.egg-info
