# `make demo` and `make test` do all the set-up themselves: a virtual environment in .venv, pinned by .ci/requirements.lock.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
BENCH_STAMP := .venv-bench/.stamp
JOBS ?= 0

.PHONY: demo test lint types bench bench-runtime bench-tunnel nat-matrix lock ray fuzz fuzz-native chaos soak endings scale clean

NATIVE_SOURCES := actors/batch/_native.c actors/batch/_kernel.h actors/batch/_receive.h actors/batch/_path.h \
  actors/batch/_answer.h actors/batch/_lane.h actors/batch/_answers.h actors/batch/_lanes.h

# With a C compiler and Python's headers this builds the native kernel too; without, everything works, only slower.
$(STAMP): pyproject.toml .ci/requirements.lock $(NATIVE_SOURCES)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r .ci/requirements.lock
	rm -f actors/batch/_native.*.so
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'from exeunt.actors.batch.choice import choose, choose_why; print(choose().name, "data path:", choose_why())'
	@touch $@

demo: $(STAMP)
	$(BIN)/exeunt demo $(ARGS)

# JOBS=2: two files of tests at a time, which takes two thirds as long. Not by default: programs of others that tests start,
# such as wireguard-go, meet in directories of the system's now and then.
test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/pyright

# The tests of the engine on a Ray cluster need the extra exeunt[ray]; without it they are skipped and say so.
ray: $(STAMP)
	$(BIN)/python -m pip install --quiet --require-hashes -r .ci/requirements-ray.lock

bench: bench-runtime bench-tunnel

# Peers have a virtual environment of their own. With it goes the built wheel: an editable install costs each process
# 18 ms at its start. Peers that cannot be installed here are left out of the table.
$(BENCH_STAMP): $(STAMP) .ci/requirements-bench.lock $(NATIVE_SOURCES) $(shell find runtime actors clients -name '*.py')
	test -d .venv-bench || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --require-hashes -r .ci/requirements-bench.lock || \
	  .venv-bench/bin/python -m pip install --quiet --require-hashes -r .ci/requirements.lock
	rm -rf build/lib* build/temp* build/wheel && mkdir -p build
	$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel . > build/wheel.log
	.venv-bench/bin/python -m pip install --quiet --no-deps --force-reinstall build/wheel/*.whl
	@touch $@

bench-runtime: $(BENCH_STAMP)
	.venv-bench/bin/python -m tests.bench runtime $(ARGS)

# Needs root; wireguard-go's newer package is fetched below build/, and coturn takes part where it is installed.
bench-tunnel: $(BENCH_STAMP)
	.venv-bench/bin/python -m tests.bench tunnel $(ARGS)

# Every kind of NAT against every other, twenty connects each, about a quarter of an hour; writes build/nat.json and fails
# if a cell is not as it must be. Needs root and coturn. The ordinary tests try eight of the pairs.
nat-matrix: $(STAMP)
	$(BIN)/python -m tests.lab.nat_matrix $(ARGS)

lock:
	uv pip compile pyproject.toml --group dev --generate-hashes --universal --no-header --no-annotate -o .ci/requirements.lock --quiet
	uv pip compile pyproject.toml --group bench -c .ci/requirements.lock --generate-hashes --universal --no-header \
	  --no-annotate -o .ci/requirements-bench.lock --quiet
	uv pip compile pyproject.toml --group dev --extra ray --constraint .ci/requirements.lock --generate-hashes --universal --no-header \
	  --no-annotate -o .ci/requirements-ray.lock --quiet

# Hostile frames and bursts, thrown at the native kernel built under two sanitizers; ARGS: --cases N --first N.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
build/fuzz/_native.so: $(STAMP) $(NATIVE_SOURCES)
	mkdir -p $(@D)
	$(CC) -std=c11 -g -O1 -fno-omit-frame-pointer -Wall -Wextra -Wconversion -Wno-sign-conversion -Wshadow -Werror \
	  $(SANITIZE) -shared -fPIC -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') \
	  actors/batch/_native.c -o $@ -ldl

fuzz-native: build/fuzz/_native.so
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 $(BIN)/python -m tests.actors.batch.fuzz $< $(ARGS)

# The tests of the runtime's reliability at length: 1,000 faults that hit a program of real processes, and 100 seeds of virtual
# ones; and ten minutes of traffic and killed workers, in which no process may grow. Neither is part of `make test`.
chaos: $(STAMP)
	EXEUNT_CHAOS_FAULTS=$${EXEUNT_CHAOS_FAULTS:-1000} EXEUNT_CHAOS_EXAMPLES=$${EXEUNT_CHAOS_EXAMPLES:-100} \
	  $(BIN)/python -m pytest -s --show-capture=no --timeout 1800 tests/runtime/chaos $(ARGS)

soak: $(STAMP)
	$(BIN)/python -m tests.runtime.chaos.soak

# A million hostile datagrams against tunnels in use; each must do nothing at all. `make test` has a tenth. Then, for a
# minute, as many as atheris can think of, if it is installed (`.venv/bin/python -m pip install atheris`).
fuzz: $(STAMP)
	$(BIN)/python -m tests.actors.wireguard.fuzzing $(ARGS)
	! $(BIN)/python -c 'import atheris' 2>/dev/null || \
	  $(BIN)/python -m tests.actors.wireguard.fuzzing --atheris -max_total_time=60 -max_len=256

# Every way in which a connection can end, played by real programs, 20 times each: build/endings.json and docs/endings.md.
# Needs root, coturn, and a machine with nothing else to do for an hour and a half: what is told is timed in milliseconds.
# ARGS: --rows WORD… --variants plain|loss|relay|tls… --runs N --lanes N.
endings: $(STAMP)
	$(BIN)/python -m tests.endings $(ARGS)

# 1,000 sign-outs on one gateway, 1,000 idle clients, and a gateway with 500 that leaves; `make test` has smaller numbers.
scale: $(STAMP)
	EXEUNT_SCALE_SIGN_OUTS=$${EXEUNT_SCALE_SIGN_OUTS:-1000} EXEUNT_SCALE_CLIENTS=$${EXEUNT_SCALE_CLIENTS:-500} \
	  EXEUNT_SCALE_IDLE=$${EXEUNT_SCALE_IDLE:-1000} \
	  $(BIN)/python -m pytest -s --timeout 1800 tests/system/test_scale.py $(ARGS)

clean:
	rm -rf .venv .venv-bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
