# make demo   installs the project into .venv and runs the main job
# make test   lint, types, import arrows, tests
PYTHON ?= python3
BIN := .venv/bin
# By path, not by an import hook: Python started beside the clone must find the package, not the clone's folder.
COMPAT := --config-settings editable_mode=compat
# A process a core, by whole files: their fixtures are made once. Some 2 GB each, so at most four.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
ANDROID_TOOLS := g++ junit4 libandroid-json-org-java zipalign apksigner aapt dexdump android-framework-res
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test pytest test-all test-android apk lint chromium postgresql android-tools bench bench-peers clean

demo: .venv/.installed
	$(BIN)/pocketfleet simulate boston-two-phones --out runs/boston-two-phones --force --plot
	$(BIN)/pocketfleet simulate mnist-fleet --out runs/mnist-fleet --force --plot

test: lint pytest

pytest: .venv/.installed-dev chromium postgresql
	$(BIN)/python -m pytest $(PARALLEL) -m "not long and not android"

test-all: lint chromium postgresql
	$(BIN)/python -m pytest $(PARALLEL) -m "not android"

# The app of android_demo: compiled, held to Android's published API, its JUnit tests on a JVM with the real ExecuTorch
# runtime, and what drives it.
test-android: .venv/.installed-dev android-tools
	$(BIN)/python android_demo/toolchain/stubs_check.py
	$(BIN)/python android_demo/toolchain/unit_tests.py
	$(BIN)/python -m pytest -m android tests/android_demo

# build/android/pocketfleet-demo.apk, without an Android SDK; every check of it counts.
apk: .venv/.installed-dev android-tools
	$(BIN)/python android_demo/toolchain/apk.py

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The browser that a run's page is opened in; elsewhere than on a root's Debian its test says what is missing.
chromium:
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; }

# The server that the service's tests start for themselves; likewise.
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; }

# What Android's tools are to Debian, and the compiler of the bridge; likewise. The JDK and Node.js are the machine's own.
android-tools:
	@dpkg-query --show $(ANDROID_TOOLS) >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    $(ANDROID_TOOLS); }

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/simulation_speed.py
	$(BIN)/python benchmarks/population_day.py
	$(BIN)/python benchmarks/large_cohort.py
	$(BIN)/python benchmarks/export_speed.py
	$(BIN)/python benchmarks/measure_efficiency.py
	$(BIN)/python benchmarks/service_load.py
	$(BIN)/python benchmarks/emulated_pace.py
	$(BIN)/python benchmarks/secure_aggregation.py
	$(BIN)/python benchmarks/private_two_phones.py
	$(BIN)/python benchmarks/codec_speed.py
	$(BIN)/python benchmarks/few_bytes.py
	$(BIN)/python benchmarks/cost_of_privacy.py

bench-peers: .venv/.installed-dev .peers/.installed
	$(BIN)/python benchmarks/peers

clean:
	rm -rf .venv .peers runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . $(COMPAT)
	touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev,cluster,flower,postgresql]' $(COMPAT)
	touch .venv/.installed $@

# Torch first and alone: the peers ask for it without a version, and must not bring another build.
.peers/.installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .peers/venv
	.peers/venv/bin/python -m pip install --quiet torch==2.13.0
	.peers/venv/bin/python -m pip install --quiet --requirement benchmarks/peers/requirements.txt
	touch $@
