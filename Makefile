# Everything a newcomer or CI needs.  `make run` and `make test` do their own set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.DEFAULT_GOAL := help

.PHONY: help js run test docs dist check format fast coverage live bench bench-peers torture soak fuzz clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

run: $(VENV)/.run ## Start the demo on http://localhost:8000
	@$(BIN)/python -m samples.demo

test: $(VENV)/.dev ## Run all tests; live ones use what is installed, and say what is not
	$(BIN)/python -m pytest -q -m "live or slow or not live"

check: $(VENV)/.dev ## Format, lint, types and fast tests: what every commit passes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --cov --cov-report=
	@echo "lines and branches reached, in percent: $$($(BIN)/coverage report --format=total)"

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fast: $(VENV)/.dev ## Run the fast tests
	$(BIN)/python -m pytest -q -n 2

coverage: $(VENV)/.dev ## Say which lines the fast tests do not reach
	$(BIN)/python -m pytest -q -n 2 --cov

live: $(VENV)/.dev ## Run the live tests
	$(BIN)/python -m pytest -q -m live

docs: $(VENV)/.dev ## Build the documentation into build/site; no other host is asked for anything
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q
	@echo "read it with: $(BIN)/python -m http.server -b localhost -d build/site"

js: ## Build client.js and the npm package from js/src; print their sizes
	cd js && npm ci --silent --no-fund --no-audit && npm run --silent check && npm run --silent build

bench: $(VENV)/.dev ## Measure ours in every host beside naive generators; see benchmarks/README.md
	$(BIN)/python -m benchmarks

bench-peers: $(VENV)/.dev ## Measure other servers of streams as well; takes long
	$(BIN)/python -m benchmarks.build
	$(BIN)/python -m benchmarks.peers

SECONDS ?= 300
torture: $(VENV)/.dev ## Kill, stop and fill things for SECONDS per log, and look for losses
	$(BIN)/python -m tests.live.torture --log sqlite --seconds $(SECONDS)
	$(BIN)/python -m tests.live.torture --log redis --seconds $(SECONDS)

soak: $(VENV)/.dev ## Run for an hour with comings, goings and restarts; draw soak.svg
	$(BIN)/python -m tests.live.soak --seconds $(or $(SOAK),3600) --picture soak.svg

# Every byte of what is published follows from the commit: its date is the date of all files.
dist: $(VENV)/.dev ## Build what is published, twice the same, into dist/; see RELEASING.md
	rm -rf dist build/dist && mkdir -p dist build/dist
	git archive --format=tar HEAD | tar -x -C build/dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build -n -o dist build/dist >/dev/null
	cd dist && for one in *.tar.gz; do tar -xzf $$one && rm $$one \
		&& tar --sort=name --mtime=@$$(git log -1 --format=%ct) --owner=0 --group=0 --numeric-owner \
			-cf - $${one%.tar.gz} | gzip -n9 > $$one && rm -r $${one%.tar.gz}; done
	$(BIN)/twine check --strict dist/*

fuzz: $(VENV)/.dev ## Generate many more inputs for parsers and HTTP than CI does
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -q tests/wire tests/web/test_openapi.py

clean: ## Remove what the targets made
	rm -rf $(VENV) .coverage .demo build *.egg-info benchmarks/build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; say which: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "On Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.run: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[gunicorn,jwt,metrics]'
	@touch $@

$(VENV)/.dev: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[dev]'
	@touch $@ $(VENV)/.run
