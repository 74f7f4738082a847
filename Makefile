# Everything here works on a fresh Debian with Python 3.11, make and a C library; as root or not.
.PHONY: setup servers demo lab test lint bench clean

PYTHON ?= python3
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
SYNC = $(UV) sync --frozen --inexact --quiet
# The Python that is here, never one downloaded from somewhere else.
export UV_PYTHON_DOWNLOADS = never
# Containers often forbid compiled files; each of the many processes here would then compile dbt once more.
export PYTHONDONTWRITEBYTECODE =

demo: $(filter .uv/%,$(UV))
	$(SYNC) --no-dev --extra demo
	.venv/bin/headwater demo $(ARGS)

# JupyterLab on a database of its own, with notebook 01 open; what you do there stays in headwater-lab/.
lab: $(filter .uv/%,$(UV))
	$(SYNC) --no-dev --extra demo --extra notebook
	.venv/bin/python -m headwater.demo.lab headwater-lab notebooks $(ARGS)

test: setup lint
	.venv/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/bin/ruff
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

# make bench ARGS="--only cdc --scale 0.1 --repeats 1"; --help lists the rest. docs/performance.md says what is measured.
bench: setup
	UV="$(UV)" PYTHONPATH=tests .venv/bin/python -m benchmarks $(ARGS)

setup: $(filter .uv/%,$(UV)) servers
	$(SYNC) --all-extras

.venv/bin/ruff: $(filter .uv/%,$(UV))
	$(SYNC) --all-extras

# Debian's minimal Python has neither venv nor pip; its own package brings them.
MAKE_UV = $(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet uv
.uv/bin/uv:
	@{ $(MAKE_UV); } >/dev/null 2>&1 \
	  || { rm -rf .uv; $(PYTHON) -m pip install --quiet --target .uv uv; } >/dev/null 2>&1 \
	  || { rm -rf .uv; $(APT) update; $(APT) install -y --no-install-recommends python3-venv && $(MAKE_UV); }

# Servers for the tests: PostgreSQL 15, and Ceph for a real S3. Later PostgreSQLs come as wheels.
# Java is for Spark, as a reader; a browser is for the widgets.
SERVERS = /usr/bin/java /usr/bin/chromium /usr/lib/postgresql/15/bin/postgres /usr/bin/ceph-mon /usr/bin/ceph-osd /usr/bin/radosgw /usr/bin/ceph
PACKAGES = openjdk-17-jre-headless chromium chromium-sandbox fonts-dejavu-core postgresql-15 ceph-common ceph-mon ceph-osd radosgw
APT = $(if $(filter 0,$(shell id -u)),,sudo -n )env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=500

servers:
	@[ -z "$(filter-out $(wildcard $(SERVERS)),$(SERVERS))" ] \
	  || { $(APT) update; $(APT) install -y --no-install-recommends $(PACKAGES); } \
	  || echo "make: no rights to install $(PACKAGES); tests that need them are skipped"

clean:
	rm -rf build dist headwater-demo headwater-lab .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find toolkit widgets tests -name __pycache__ -type d -prune -exec rm -rf {} +
