# One word per chore; CI calls the same words.
#   make demo         classify X-rays at http://127.0.0.1:7860 with the models of pretrained/
#   make test         the tests                      make check      ruff, mypy
#   make test-fast    those of the edit loop         make test-exhaustive    those that take long
#   make test-oldest  test-fast with the oldest packages that pyproject.toml admits; test-newest: the newest
#   make test-cluster the tests on local clusters of Ray and Spark; the latter needs Java
#   make mutants      do the tests of splits, metrics, intervals and calibration notice changed code?
#   make docs         the documentation in site/     make docs-serve shows it while you write
#   make release      OWNER=… build and check what a person then uploads: docs/releasing.md
#   make web          the page that needs no server, in build/web; make web-demo shows it; both need npm
#   make train        DATA=… MODEL=… ARGS=…
#   make reproduce    DATA=… SOURCES="KIND:NAME=DIR …"  docs/results.md, in hours
#   make bench-train  DATA=…  our loop against its peers
#   make bench-gpu    DATA=…  check and measure training on a GPU
#   make bench-inference IMAGES=… BUNDLES="…"  our engine against its peers
#   make bench-demo      IMAGES=… BUNDLES="…"  our demo under load against the plain one
PYTHON ?= python3
MODEL ?= xray-resnet18
SYNTHETIC := data/synthetic
DATA ?= $(SYNTHETIC)
WEB_MODELS ?= pretrained/xray-resnet18-multisource pretrained/xray-cnn-multisource
BIN := .venv/bin
OWNER ?= owner

.PHONY: demo test test-fast test-exhaustive test-oldest test-newest test-cluster mutants check docs docs-serve release
.PHONY: train reproduce bench-train bench-gpu bench-inference bench-demo install web web-demo
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

.venv/docs: requirements-docs.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement $<
	@touch $@

.venv/release: .venv/installed requirements-release.txt
	$(BIN)/pip install --quiet --requirement requirements-release.txt
	@touch $@

$(SYNTHETIC): | .venv/installed
	$(BIN)/xray-hf atlas --out $@ --patients 600 --seed 0

demo: .venv/demo
	$(BIN)/python app.py

# The order is that of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: install .venv/docs
	$(PYTEST) -m "not exhaustive"

test-fast: install .venv/docs
	$(PYTEST) -m "not exhaustive and not slow"

test-exhaustive: install
	$(PYTEST) -m exhaustive

test-cluster: install
	$(BIN)/pip install --quiet --requirement requirements-cluster.txt
	$(BIN)/python -m pytest -m cluster

# Other versions of most packages lie over those of .venv; scripts/versions.py lists them.
test-oldest test-newest: test-%: install .venv/docs
	rm -rf build/$*
	$(BIN)/pip install --quiet --no-deps --target build/$* $$($(BIN)/python scripts/versions.py $*)
	PYTHONPATH=build/$* $(PYTEST) -m "not exhaustive and not slow"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: install
	$(BIN)/pip install --quiet mutmut==3.8.1
	$(BIN)/mutmut run

docs: .venv/docs
	$(BIN)/properdocs build --quiet --config-file mkdocs.yml
	@echo "site/index.html"

docs-serve: .venv/docs
	$(BIN)/properdocs serve --config-file mkdocs.yml

# An empty environment tries the wheel, outside of this folder: else Python would find the package here.
TRIAL := build/release
release: .venv/release
	@git diff --quiet HEAD || { echo "error: there are changes that are not committed" >&2; exit 2; }
	rm -rf dist $(TRIAL)
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv $(TRIAL)
	$(TRIAL)/bin/pip install --quiet dist/*.whl
	cd $(TRIAL) && bin/xray-hf --help
	cd $(TRIAL) && bin/xray-hf predict $(CURDIR)/pretrained/xray-cnn $(CURDIR)/pretrained/xray-cnn/reference --out answers.csv
	for bundle in $(notdir $(wildcard pretrained/*)); do \
		$(BIN)/xray-hf push pretrained/$$bundle --repo-id $(OWNER)/$$bundle --dry-run || exit; done
	@ls -l dist
	@version=$$($(BIN)/python -c "import xray_hf; print(xray_hf.__version__)"); printf '%s\n' \
		"Nothing was uploaded. If all of the above is right, docs/releasing.md goes on with" \
		"  git tag -a v$$version -m \"xray_hf $$version\" && git push origin v$$version" \
		"  $(BIN)/twine upload dist/*" \
		"  $(BIN)/xray-hf push pretrained/NAME --repo-id $(OWNER)/NAME --tag v$$version   # for each bundle"

# The page's libraries, each as one file of its own host.
web/vendor: web/package-lock.json web/vendor.mjs
	cd web && npm ci --silent && npm run --silent vendor
	@touch $@

web: install web/vendor
	cd web && npm run --silent templates
	rm -rf build/web
	$(BIN)/python scripts/build_web.py $(WEB_MODELS) --out build/web

web-demo: web
	$(BIN)/python scripts/serve_web.py build/web

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

bench-gpu: install
	@test "$(DATA)" != "$(SYNTHETIC)" || { echo "error: pass DATA=, a folder in CoronaHack's layout" >&2; exit 2; }
	$(BIN)/python benchmarks/bench_gpu.py --data-dir $(DATA) $(ARGS)

bench-inference: install
	@test -n "$(IMAGES)" -a -n "$(BUNDLES)" || { echo "error: pass IMAGES= a folder, BUNDLES= exported bundles" >&2; exit 2; }
	$(BIN)/python benchmarks/bench_inference.py --images $(IMAGES) $(BUNDLES:%=--bundle %) $(ARGS)

bench-demo: install
	@test -n "$(IMAGES)" -a -n "$(BUNDLES)" || { echo "error: pass IMAGES= a folder, BUNDLES= exported bundles" >&2; exit 2; }
	$(BIN)/python benchmarks/bench_demo.py --images $(IMAGES) $(BUNDLES:%=--bundle %) $(ARGS)
