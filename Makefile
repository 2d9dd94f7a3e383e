# The commands of this project: each target is what README.md, CONTRIBUTING.md and .ci/run call.
# A fresh machine needs Python 3.11 or newer and make; everything else is set up from requirements/lock.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test check format man pictures lock bench profile simulate simulate-fleet mutants torture fleet-torture restarts fuzz sdks soak deb package-test fresh-test clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# The virtual environment, made anew whenever the lock or a project file is newer than it.
.venv/.made: requirements/lock.txt pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "brokerd needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version`. Name another with: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/lock.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e client -e .
	@touch $@

setup: .venv/.made ## make the virtual environment in .venv

demo: .venv/.made ## run the main job for real, in under a minute
	$(BIN)/python examples/demo.py

# Twice as many processes as there are cores, since tests wait as much as they compute; tests that are named run in
# one, which shows at once what they find. Files are begun in their order: those in tests/real, which take long, come
# first, and the short ones of tests/unit fill the processes at the end. Each of the hundreds of programs that they
# start would compile brokerd again.
JOBS ?= $(if $(TESTS),0,$(shell echo $$(($$(nproc) * 2))))
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/.made ## run all tests, or those named: TESTS=tests/unit/core; JOBS=2 is how many processes
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

check: .venv/.made ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.made ## put the code in the project's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# pandoc is no part of the lock: it is large, and only those who change the text of a page need it.
.venv/.man: .venv/.made requirements/man.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements/man.txt
	@touch $@

man: .venv/.man ## make the manual pages in brokerd/man from docs/man, docs/configuration.md and the code
	$(BIN)/python -m docs.man.build

pictures: .venv/.made ## make the pictures of the page in docs/pictures, of a real daemon and a real browser (some minutes)
	$(BIN)/python -m tests.pictures

# An environment of their own: nothing that users install resolves together with them.
.venv-sdks/.made: requirements/sdks.txt
	$(PYTHON) -m venv .venv-sdks
	.venv-sdks/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/sdks.txt
	@touch $@

sdks: .venv-sdks/.made ## the SDKs of clouds that tests ask for credentials with; without them these tests say so

bench: .venv/.made ## measure, in one interleaved run, against a bare server
	$(BIN)/python -m bench

profile: .venv/.made ## where a get's time goes, by function and by line
	$(BIN)/python -m bench.profile

SEEDS ?= 200
simulate: .venv/.made ## the laws under random faults on virtual time (SEEDS=200, or SECONDS=120)
	$(BIN)/python -m tests.stress.simulation $(if $(SECONDS),--seconds $(SECONDS),--seeds $(SEEDS))

simulate-fleet: .venv/.made ## the same with 3 to 7 hosts that share their grants (SEEDS=200, or SECONDS=120)
	$(BIN)/python -m tests.stress.simulation.fleet $(if $(SECONDS),--seconds $(SECONDS),--seeds $(SEEDS))

mutants: .venv/.made ## whether the simulation finds deliberate bugs
	$(BIN)/python -m tests.stress.simulation --mutants
	$(BIN)/python -m tests.stress.simulation.fleet --mutants

TIMES ?= 200
torture: .venv/.made ## kill the real daemon at every point, with real servers (TIMES=200)
	$(BIN)/python -m tests.stress.torture --times $(TIMES)

fleet-torture: MINUTES ?= 10
fleet-torture: .venv/.made ## five hosts that share grants through etcd: kills, partitions, pauses, wrong clocks (MINUTES=10, root)
	$(BIN)/python -m tests.stress.fleet_torture --minutes $(MINUTES)

restarts: SECONDS ?= 60
restarts: .venv/.made ## restart and kill the service under 200 fetches a second: is any lost? (SECONDS=60)
	$(BIN)/python -m tests.real.systemd.restarts --seconds $(SECONDS)

# atheris is no part of the lock: it has wheels for few platforms. Its stamp goes with .venv when that is made anew.
.venv/.fuzz: .venv/.made requirements/fuzz.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r requirements/fuzz.txt || { echo "atheris has no wheel for this Python and platform (it has for CPython 3.11 to 3.13 on Linux, x86-64), or cannot be fetched. The same checks run without it: make test TESTS=tests/stress/fuzz" >&2; exit 2; }
	@touch $@

fuzz: SECONDS ?= 60
fuzz: .venv/.fuzz ## random bytes for whatever reads bytes (SECONDS=60 for each target)
	$(BIN)/python -m tests.stress.fuzz --seconds $(SECONDS)

soak: MINUTES ?= 30
soak: .venv/.made ## the daemon for minutes among faults and rude clients; is everything flat? (MINUTES=30)
	$(BIN)/python -m tests.stress.soak --minutes $(MINUTES)

deb: .venv/.made ## build the Debian package into dist/
	debian/build.sh

DEBIAN := build/debian-12
$(DEBIAN): tests/real/package/root.sh
	tests/real/package/root.sh $@

package-test: $(DEBIAN) deb ## the package on a clean Debian 12, from installation to purge (root)
	@command -v lintian >/dev/null || { echo "lintian is missing: apt-get install lintian" >&2; exit 2; }
	$(BIN)/python -m pytest tests/real/package

fresh-test: .venv/.made ## what the README tells a newcomer to type, on a clean Debian 12 with nothing in its home (root)
	$(BIN)/python -m pytest tests/real/fresh

lock: ## resolve the dependencies again (UPGRADE=--upgrade takes newer versions)
	PYTHON=$(PYTHON) requirements/lock.sh

clean: ## remove what the targets above made
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
