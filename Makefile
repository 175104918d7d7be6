# ifpp: `make demo` runs a whole line, `make test` proves it. See README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?=
BENCH ?= all
CAMPAIGN ?= --kills 60 --seed 1
FUZZ_RUNS ?= 200000

# Dozens of processes start here: each would compile all of Python's modules anew without their bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test system lint types floors unit fuzz bench screens study soak campaign readers dashboards reference contract package bundle install-test lock clean
.DELETE_ON_ERROR:

demo: $(VENV)/.runtime $(if $(findstring pcsc,$(DEMO))$(findstring mixed,$(DEMO)),readers)
	@$(BIN)/ifpp demo $(DEMO)

test: system lint types floors unit
	@$(MAKE) --no-print-directory fuzz FUZZ_RUNS=20000

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

floors: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev readers
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz.fuzz_wire -atheris_runs=$(FUZZ_RUNS)

bench: $(VENV)/.dev readers
	$(BIN)/python -m tests.bench $(BENCH)

# Every screen and state as a picture in ./screens: PNG where there is a Chromium, else SVG.
screens: $(VENV)/.dev
	@TZ=UTC $(BIN)/python -m tests.tui.screens screens

# How soon a worn socket among 16 is found, and how often a good one is blamed.
study: $(VENV)/.dev
	@$(BIN)/python -m tests.study.worn_socket

# 16 threads use one SoftHSM token for a minute.
soak: $(VENV)/.dev
	@$(BIN)/python -m tests.study.key_soak

# Kills, pulls, freezes and fills what it can while the line works, then asks every chip what it holds.
campaign: $(VENV)/.dev
	@$(BIN)/python -m tests.campaign $(CAMPAIGN)

# Grafana's dashboards, from the tables in make.py.
dashboards:
	$(PYTHON) deploy/grafana/make.py

# config/REFERENCE.md, from the settings' types and the comments in the sample files.
reference: $(VENV)/.runtime
	@$(BIN)/python scripts/reference.py

# The line contract as files, frozen for the version at hand as long as that is not released.
contract: $(VENV)/.runtime
	@PYTHONPATH=. $(BIN)/python scripts/contract.py

# dist/ifpp_VERSION_ARCH.deb for Debian 12, with everything it needs of Python; the same bytes each time.
package: $(VENV)/.runtime
	@PYTHON=$(BIN)/python sh scripts/system.sh readers
	@$(BIN)/python deploy/package/build.py dist

# dist/ifpp-VERSION-bundle.tar: wheels, package, SBOM, signed: make bundle KEY=signing.pem
bundle: package
	@$(BIN)/python deploy/bundle/build.py dist "$(KEY)"

# Package, bundle, README and the container's image in a fresh Debian (debootstrap, as root): some minutes.
install-test: system $(VENV)/.dev
	@$(BIN)/pytest tests/deploy/in_chroot.py tests/deploy/in_image.py

# Real components the tests start. Without root they are skipped, with CI=true a missing one fails.
system:
	@PYTHON=$(PYTHON) sh scripts/system.sh

# pyscard is compiled here, against the library of pcscd.
readers: $(VENV)/.runtime
	@PYTHON=$(BIN)/python sh scripts/system.sh readers
	@test $(VENV)/.pcsc -nt requirements/pcsc.txt || sh scripts/pyscard.sh $(VENV)

$(VENV)/bin/python:
	@sh scripts/venv.sh $(PYTHON) $(VENV)

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing ifpp into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing ifpp and its tools into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Needs uv. Requirements format: hashes, and no registry address.
lock:
	uv pip compile pyproject.toml --extra demo --extra build --generate-hashes --python-version 3.11 --no-annotate --no-header -q -o requirements/runtime.txt
	echo 'pyscard>=2.2,<3' | uv pip compile - --generate-hashes --python-version 3.11 --no-annotate --no-header -q -o requirements/pcsc.txt
	uv pip compile pyproject.toml --extra demo --extra build --extra dev --generate-hashes --python-version 3.11 --no-annotate --no-header -q -o requirements/dev.txt
	uv pip compile pyproject.toml --extra demo --extra postgres --extra sparkplug --extra web -c requirements/dev.txt --generate-hashes --python-version 3.11 --no-annotate --no-header -q -o requirements/site.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
