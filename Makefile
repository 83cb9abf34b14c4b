PYTHON = .venv/bin/python

.PHONY: setup quickstart test lint fix wheel clean

setup:
	bash tools/setup_env.sh

quickstart:
	bash tools/quickstart.sh

test:
	bash tools/test.sh

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

fix: setup
	$(PYTHON) -m ruff check --fix .

wheel: setup
	$(PYTHON) -m pip wheel --no-deps --no-build-isolation -w dist .

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
