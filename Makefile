# `make demo` and `make test` do all the set-up themselves: a virtual environment in .venv, pinned by .ci/requirements.lock.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp

.PHONY: demo test lint types bench lock clean

$(STAMP): pyproject.toml .ci/requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r .ci/requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/exeunt demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python -m tests.bench $(ARGS)

lock:
	uv pip compile pyproject.toml --group dev --generate-hashes --universal --no-header --no-annotate -o .ci/requirements.lock --quiet

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
