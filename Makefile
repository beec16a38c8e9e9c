# make run: everything, running.  make test: everything, checked.  Both set up what they need.

PYTHON ?= python3
BIN := .venv/bin
PARALLEL := --numprocesses=2 --dist=loadgroup

.PHONY: run test fuzz bench torture install verify-unit format clean

run: install
	@exec $(BIN)/python -m tornado_ds demo

# To follow every line doubles what a test has to do. The property tests and those marked `untraced`
# would take the longest, so they run without: coverage is enough without them.
test: install
	@test -d node_modules || { echo "make test needs Node.js 18+ and npm for the real deepstream server" >&2; exit 1; }
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	npm run --silent check
	npm test --silent
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PARALLEL) -m "not (hypothesis or untraced)"
	$(BIN)/pytest $(PARALLEL) -m "hypothesis or untraced"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/python -m tests.coverage_gate

# Compiled as pip leaves packages: an environment that keeps Python from writing its bytecode, as
# containers often are, would have every program that the tests start compile it all again.
install: .venv/installed node_modules/.installed
	@$(BIN)/python -m compileall -q tornado_ds tests benchmarks/*.py torture

# The property tests with 200 times the examples of `make test`, which takes an hour or so: make fuzz EXAMPLES=5000
fuzz: export EXAMPLES ?= 20000
fuzz: install
	$(BIN)/pytest --numprocesses=2 -m hypothesis --hypothesis-profile=fuzz

# make bench ARGS='--quick --only storm'; ARGS=--help says what there is.
bench: install benchmarks/peers/.venv/installed benchmarks/peers/node_modules/.installed
	@$(BIN)/python -m benchmarks $(ARGS)

# make torture ARGS='--quick --only sqlite'; the half hour of `--only soak` is only run when it is named.
torture: install
	@$(BIN)/python -m torture $(ARGS)

# The unit's program is not installed here, so another one stands in for it. To systemd, what it
# warns of is no failure.
verify-unit:
	@mkdir -p build
	@sed 's#/opt/tornado_ds/bin/tornado-ds#/bin/true#' config/tornado_ds.service > build/tornado_ds.service
	@command -v systemd-analyze >/dev/null || { echo "make verify-unit needs systemd-analyze" >&2; exit 1; }
	! systemd-analyze verify build/tornado_ds.service 2>&1 | grep tornado_ds.service

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Without Node the auth server runs alone, so its absence is no failure here.
node_modules/.installed: package-lock.json
	@if command -v npm >/dev/null; then npm ci --no-audit --no-fund --loglevel=error && touch $@; \
	else echo "npm is not installed: the auth server will run without deepstream"; fi

benchmarks/peers/.venv/installed: benchmarks/peers/requirements.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

benchmarks/peers/node_modules/.installed: benchmarks/peers/package-lock.json
	npm ci --prefix benchmarks/peers --no-audit --no-fund --loglevel=error
	@touch $@

clean:
	rm -rf .venv node_modules build dist *.egg-info
