# make run     run a recipe (RECIPE=recipes/x.yaml, ARGS="--set train.steps=2000")
# make test    run the tests (ARGS="-k registry", WORKERS=8)
# make torture    mistreat fw for an hour or so and count what went wrong (KILLS=50, FLIPS=1000, MINUTES=20, ...)
# make bench   measure fw beside what one would take in its place (ARGS="--only training")
# make dependencies    test with the oldest stated versions of the dependencies and with the newest
# make docs    take pictures of a finished run's pages with a browser (RUN=runs/self_guidance/latest)
# make site    build the docs site into build/site, strictly: every link and anchor leads somewhere
# make reference    write docs/kinds again, from the kinds, their contracts and their templates
#
# Whatever is missing is set up first, in .venv, and only once.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
RECIPE ?= recipes/self_guidance.yaml
WORKERS ?= 2
RUN ?= runs/self_guidance/latest

# Of make torture.
RECIPES ?= 20000
FLIPS ?= 1000
KILLS ?= 50
DISKS ?= 12
MINUTES ?= 20
SEED ?= 0

READY := .venv/ready

.PHONY: run test torture bench dependencies setup lint types docs site reference clean

run: $(READY)
	.venv/bin/fw run $(RECIPE) $(ARGS)

# One thread per worker: the tests' tensors are small, and two workers already use two cores.
test: export OMP_NUM_THREADS := 1
test: $(READY)
	.venv/bin/pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

torture: export OMP_NUM_THREADS := 1
torture: export PYTHONPATH := tests
torture: $(READY)
	.venv/bin/python -m torture --recipes $(RECIPES) --flips $(FLIPS) --kills $(KILLS) --disks $(DISKS) \
	    --minutes $(MINUTES) --seed $(SEED) --json torture.json --page docs/reliability.md $(ARGS)

# One thread, so that CPU seconds are of the same work on both sides.
bench: export OMP_NUM_THREADS := 1
bench: export PYTHONPATH := tests
bench: $(READY)
	.venv/bin/python -m bench.speed --json performance.json --page docs/performance.md $(ARGS)

dependencies: export PYTHONPATH := tests
dependencies: $(READY)
	.venv/bin/python -m torture.dependencies $(ARGS)

setup: $(READY)

lint: $(READY)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports --no-logo

types: $(READY)
	.venv/bin/mypy

docs: export PYTHONPATH := tests
docs: $(READY)
	.venv/bin/python -m screenshots $(RUN) docs/images

site: export NO_MKDOCS_2_WARNING := 1
site: $(READY)
	.venv/bin/mkdocs build --strict $(ARGS)

reference: $(READY)
	.venv/bin/python -m fw.core.catalogue.reference docs/kinds

# The stored runs and .venv stay.
clean:
	rm -rf build dist fw.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	find core plugins recipes registry tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "fw needs Python 3.11 or newer, and '$(PYTHON)' is not: try make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --constraint constraints.txt --editable ".[test,lint,docs]"
	touch $@
