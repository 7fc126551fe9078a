# make demo   environment, a real radiograph upscaled, a page that shows the result
# make fast   the tests that need no process, peer, private data or GPU: under three minutes
# make test   the whole suite
# make nightly  long fuzzing, kills, full disks and hostile peers: hours
# make check  lint and types

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo-output
WORKERS ?= 2

SEED ?= $(shell date +%Y%m%d)

.PHONY: demo fast test nightly check wheel clean

demo: $(READY)
	mkdir -p $(DEMO)
	$(BIN)/cxrsr upscale --scale 4 --verbose --overwrite examples/chest-256.dcm $(DEMO)/chest-x4.dcm
	$(BIN)/python examples/compare.py examples/chest-256.dcm $(DEMO)/chest-x4.dcm \
		examples/chest-1024.dcm $(DEMO)/comparison.png
	$(BIN)/cxrsr compare examples/chest-256.dcm $(DEMO)/chest-x4.dcm --output $(DEMO)/compare.html

# A thread each: the tests are many and small.
fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) \
		-m "not process and not peer and not data and not gpu and not slow"

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

# Another seed each night; docs/reliability.md says what each line is for.
nightly: $(READY)
	$(BIN)/python -m tests.fuzz.command --cases 6000 --seed $(SEED)
	$(BIN)/python -m tests.fuzz.codestreams --cases 6000 --seed $(SEED)
	CXRSR_NIGHTLY=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/batch/test_crashes.py \
		tests/batch/test_ledger.py tests/batch/test_hostile_paths.py tests/cluster/test_local_cluster.py \
		tests/serve/test_crashes.py tests/serve/test_service.py tests/receive/test_hostile_peers.py \
		tests/send/test_hostile_scp.py tests/send/test_stow.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(READY)
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) $(DEMO) build dist

# The constraints pin every version. Where pip has no CPU build of torch at hand,
# it takes the one with CUDA, which works on a CPU too.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
