# make install    a virtual environment in .venv with everything in it (again only when its inputs changed)
# make run        the first sweep: which ratio of linear to full attention? 15 minutes, a report at the end
# make test       lint, types and the tests: twelve minutes on two cores
# make test-slow  the rest: blocks with other options, whole sweeps and trainings, kills, simulated rates
# make lint       ruff and pyright alone
# make clean      remove .venv and caches; runs/ stays

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The tests hold our Genesis against its own package, which needs transformers for its tokenizer alone.
GENESIS_LLM := 2.0.1
# A tester per core. Each begins with a stretch of neighbouring tests, which share what their file sets up, and takes
# from the others' when it is through. Beyond eight, importing torch costs more memory than it saves time. Each has one thread:
# two that spin for two cores are slower than one.
TESTERS := --numprocesses auto --maxprocesses 8 --dist worksteal
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest $(TESTERS)

.PHONY: install run test test-slow lint browser postgres clean

install: $(STAMP)

# pip learnt to read dependency groups in 25.1.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; give a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	$(BIN)/python -m pip install --quiet --no-deps "genesis-llm==$(GENESIS_LLM)"
	@touch $@

run: install
	$(BIN)/lab sweep ratios.yaml --time 15m

test: install browser postgres lint
	$(PYTEST) -m "not slow"

test-slow: install browser postgres
	$(PYTEST) -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The report is looked at, and pictures are drawn, in a real browser. Without one those tests are skipped and say so.
browser:
	@command -v chromium >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null && exit 0; \
	fi; \
	echo "no chromium here: the tests that open the report or draw in a browser are skipped" >&2

# Sweeps over several machines are tested by a real database. Without one those tests are skipped and say so.
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends postgresql >/dev/null && exit 0; \
	fi; \
	echo "no PostgreSQL here: the tests of sweeps over a database are skipped" >&2

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
