# `make demo` and `make test` do all the set-up themselves: a virtual environment in .venv, pinned by .ci/requirements.lock.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp

.PHONY: demo test lint types bench lock ray clean

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

# The tests of the engine on a Ray cluster need the extra exeunt[ray]; without it they are skipped and say so.
ray: $(STAMP)
	$(BIN)/python -m pip install --quiet --require-hashes -r .ci/requirements-ray.lock

bench: $(STAMP)
	$(BIN)/python -m tests.bench $(ARGS)

lock:
	uv pip compile pyproject.toml --group dev --generate-hashes --universal --no-header --no-annotate -o .ci/requirements.lock --quiet
	uv pip compile pyproject.toml --group dev --extra ray --constraint .ci/requirements.lock --generate-hashes --universal --no-header --no-annotate -o .ci/requirements-ray.lock --quiet

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
