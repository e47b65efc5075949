# One word per chore; CI calls the same words.
#   make demo         classify X-rays at http://127.0.0.1:7860 with the models of pretrained/
#   make test         all tests                      make check      ruff, mypy
#   make test-cluster the tests on local clusters of Ray and Spark; the latter needs Java
#   make train        DATA=… MODEL=… ARGS=…
#   make reproduce    DATA=… SOURCES="KIND:NAME=DIR …"  docs/results.md, in hours
#   make bench-train  DATA=…  our loop against its peers
#   make bench-inference IMAGES=… BUNDLES="…"  our engine against its peers
#   make bench-demo      IMAGES=… BUNDLES="…"  our demo under load against the plain one
PYTHON ?= python3
MODEL ?= xray-resnet18
SYNTHETIC := data/synthetic
DATA ?= $(SYNTHETIC)
BIN := .venv/bin

.PHONY: demo test test-cluster check train reproduce bench-train bench-inference bench-demo install browser
.DEFAULT_GOAL := demo

install: .venv/installed

# The demo needs a tenth of what training does; everything else comes on top of it.
.venv/demo: requirements-demo.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements-demo.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

.venv/installed: .venv/demo requirements.txt requirements-dev.txt
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	@touch $@

$(SYNTHETIC): | .venv/installed
	$(BIN)/xray-hf atlas --out $@ --patients 600 --seed 0

demo: .venv/demo
	$(BIN)/python app.py

test: install browser
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-cluster: install
	$(BIN)/pip install --quiet --requirement requirements-cluster.txt
	$(BIN)/python -m pytest -m cluster

# For the tests of the page; who is not root installs it himself, or these tests are skipped.
browser:
	@command -v chromium > /dev/null || test "$$(id -u)" != 0 || \
		{ apt-get update -qq && apt-get install -qq --no-install-recommends chromium > /dev/null; }

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: install $(if $(filter $(SYNTHETIC),$(DATA)),$(SYNTHETIC))
	$(BIN)/python train.py --model $(MODEL) --data-dir $(DATA) \
		$(if $(filter $(SYNTHETIC),$(DATA)),--no-pretrained) $(ARGS)

reproduce: install
	@test "$(DATA)" != "$(SYNTHETIC)" || { echo "error: pass DATA=, the folder of CoronaHack" >&2; exit 2; }
	$(BIN)/python scripts/reproduce.py --data-dir $(DATA) $(SOURCES:%=--source %) $(ARGS)
	$(BIN)/python scripts/collect_results.py runs/reproduce
	$(BIN)/python scripts/write_results.py

bench-train: install
	$(BIN)/python benchmarks/bench_train.py $(if $(filter-out $(SYNTHETIC),$(DATA)),--data-dir $(DATA)) $(ARGS)

bench-inference: install
	@test -n "$(IMAGES)" -a -n "$(BUNDLES)" || { echo "error: pass IMAGES= a folder, BUNDLES= exported bundles" >&2; exit 2; }
	$(BIN)/python benchmarks/bench_inference.py --images $(IMAGES) $(BUNDLES:%=--bundle %) $(ARGS)

bench-demo: install
	@test -n "$(IMAGES)" -a -n "$(BUNDLES)" || { echo "error: pass IMAGES= a folder, BUNDLES= exported bundles" >&2; exit 2; }
	$(BIN)/python benchmarks/bench_demo.py --images $(IMAGES) $(BUNDLES:%=--bundle %) $(ARGS)
