# `make demo` and `make test` need Python 3.11 or newer and nothing else; they make what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TYPES := $(VENV)/grafana-types

.PHONY: demo test lint types pack docs real lock clean

demo: $(STAMP)  ## start a router with three simulated nodes and mixed traffic; Ctrl-C ends it
	@$(BIN)/herd demo

test: $(STAMP) tools $(TYPES)/.installed  ## the gate: lint, types, all tests
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 3 --dist loadscope --no-loadscope-reorder --ignore tests/pack/test_alerts_live.py
	$(BIN)/pytest -q tests/pack/test_alerts_live.py  # alone: its Prometheus gives a scrape one second

$(STAMP): pyproject.toml requirements-dev.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

.PHONY: tools
tools:  ## the programs that the tests call, where they are missing and may be installed
	@missing=""; for tool in sqlite3 curl prometheus; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	test -x /usr/bin/chromium || missing="$$missing chromium fonts-dejavu-core"; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing; \
		else echo "The tests need:$$missing"; exit 1; fi; \
	fi

# Grafana's types and a compiler, for one test, which is skipped where npm is not there.
$(TYPES)/.installed: tests/pack/types/package-lock.json $(STAMP)
	@mkdir -p $(TYPES) && cp tests/pack/types/package*.json $(TYPES)
	@if command -v npm >/dev/null; then npm ci --silent --ignore-scripts --no-audit --no-fund --prefix $(TYPES) \
		|| echo "npm cannot install Grafana's types: the dashboards are not checked against them"; fi
	@touch $@

pack: $(STAMP)  ## write rules and dashboards from their tables
	$(BIN)/python -m otel.build
	$(BIN)/python -m grafana.build

docs: $(STAMP)  ## write the reference that is made from the tables
	$(BIN)/herd docs --write docs

PIN := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header

lock: $(STAMP)  ## pin what development installs, and of that what the image is built with and holds
	$(BIN)/python -m pip install --quiet uv
	$(PIN) --extra dev pyproject.toml -o requirements-dev.lock
	$(PIN) --no-annotate -c requirements-dev.lock pyproject.toml -o requirements.lock
	grep -o 'hatchling[^"]*' pyproject.toml | head -1 | $(PIN) --no-annotate -c requirements-dev.lock - \
		-o requirements-build.lock

real: $(STAMP)  ## end-to-end tests against real inference servers (builds them first; takes a while)
	bash scripts/build_engines.sh .engines
	bash scripts/build_collector.sh .engines
	$(BIN)/pytest -q -m real tests/real

.PHONY: bench
bench: $(STAMP)  ## requests/s, latency, CPU and memory beside nginx and a bare proxy, as a table; `BENCH=--quick` for a look
	$(BIN)/python -m benchmarks.bench $(BENCH)

.PHONY: soak
soak: $(STAMP)  ## ten minutes of random faults: what the router holds before and after
	$(BIN)/python -m benchmarks.soak

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
