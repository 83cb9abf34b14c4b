PYTHON = .venv/bin/python

.PHONY: setup quickstart test test-modern fuzz faults sweep lint fix wheel clean

setup:
	bash tools/setup_env.sh

quickstart:
	bash tools/quickstart.sh

test:
	bash tools/test.sh

# The same with a current torch, numpy 2 and Python 3.12 or 3.11.
test-modern:
	STACK=modern bash tools/test.sh

# The fuzz and fault suites at their full count; docs/TESTING.md.
fuzz: setup
	FUZZ=$${FUZZ:-50} OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q tests/test_fuzz*.py

faults: setup
	FAULTS=$${FAULTS:-50} OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q tests/test_faults.py

# MMDetection's packaged configs, one for each dataset class and detector family.
sweep: setup
	SWEEP=all OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n 2 tests/test_sweep_pruning.py tests/test_sweep_dynamic.py

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

fix: setup
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

wheel: setup
	$(PYTHON) -m pip wheel --no-deps --no-build-isolation -w dist .

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
