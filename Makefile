# make demo: install kd and distil the embedded sample.  make test: lint, types, tests.  make test-slow: tests that need a
# browser, servers of other projects, long kills, or all tasks.  make docs: the generated pages.  make binary: dist/kd, one
# file that runs every command.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := kdcli plugins tests benchmarks examples docs

.PHONY: demo test test-slow lint types docs binary clean

demo: $(VENV)/.installed
	$(BIN)/kd run-all

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2  # one thread for each of two processes

test-slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'slow and not network'

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.installed-dev
	$(BIN)/mypy
	for kind in generator student tagger teacher; do MYPYPATH=kdcli/scaffold/$$kind $(BIN)/mypy -p kd_example || exit 1; done
	$(BIN)/mypy docs/generate.py

build/npm: $(VENV)/.installed-dev  # what the page of `kd export web` is made of
	mkdir -p $@.new
	cd $@.new && $$($(abspath $(BIN))/python -c 'from kdcli.export.web import PACK; print(PACK)')
	mv $@.new $@

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

# shiv and not pex, whose quick form (--venv) finds no plugins beside it, nor PyInstaller, which finds none at all.
binary:
	rm -rf build/binary
	$(MAKE) VENV=build/binary/tools build/binary/tools/.created
	build/binary/tools/bin/pip install -q -c constraints.txt shiv
	build/binary/tools/bin/pip install -q -c constraints.txt --no-compile --target build/binary/site '.[onnx,serve]'
	mkdir -p dist
	build/binary/tools/bin/shiv --site-packages build/binary/site --console-script kd --extend-pythonpath \
	    --python "/usr/bin/env $$($(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])')" --output-file dist/kd
	rm -rf build/binary

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "kd needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -e . -c constraints.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q -e '.[dev]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
