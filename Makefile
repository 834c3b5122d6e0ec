# Each command does its own set-up: a virtual environment in .venv, with everything that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The interpreter that goes into the packages, and what they are built with.
PACKAGES_PYTHON ?= python3
PACKAGES_TOOLS := build/packages-tools
PACKAGES_STAMP := $(PACKAGES_TOOLS)/.installed

.PHONY: demo test check lint types imports sizes bench chaos packages clean

demo: $(STAMP)            ## Deploy a real application with the real daemon, and watch it happen
	@$(BIN)/python demo/demo.py $(ARGS)

test: $(STAMP)            ## Run all tests
	$(BIN)/python -m pytest $(ARGS)

check: lint types imports sizes ## Linter, type checker, import rules, sizes of files and classes

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck .ci/run packaging/install.sh packaging/commands/* tests/packaging/booted/boot-root
	@# The packages' scripts begin with functions.sh, of which each uses some.
	@for script in packaging/scripts/deb-* packaging/scripts/rpm-* packaging/scripts/tidy; do \
		cat packaging/scripts/functions.sh "$$script" | $(BIN)/shellcheck --shell sh --exclude SC2329,SC2317,SC2094 - || { echo "in $$script" >&2; exit 1; }; \
	done

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

sizes: $(STAMP)
	$(BIN)/python -m pytest -q tests/test_sizes.py

bench: $(STAMP)           ## Figures: idle memory, start, overhead per command
	$(BIN)/python -m compileall -q agent
	$(BIN)/python bench/daemon.py
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m bench.commands

chaos: $(STAMP)           ## Harm real agents at random moments for ten minutes; as root for all kinds of faults
	$(BIN)/python -m chaos $(ARGS)

packages: $(PACKAGES_STAMP) ## Build deb, rpm and tarball into build/packages, with PACKAGES_PYTHON inside
	@PYTHONPATH=packaging $(PACKAGES_TOOLS)/bin/python -B -m packages --python '$(PACKAGES_PYTHON)' $(ARGS)

# Two builds at a time may both want it made.
$(PACKAGES_STAMP): packaging/requirements-build.txt
	@mkdir -p $(dir $(PACKAGES_TOOLS))
	@exec 9> $(PACKAGES_TOOLS).lock && flock 9 && if ! test $@ -nt $<; then \
		$(PYTHON) -m venv --clear $(PACKAGES_TOOLS) || { echo 'The venv module of Python is missing; on Debian: apt install python3-venv' >&2; exit 1; }; \
		$(PACKAGES_TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $< && touch $@; \
	fi

$(STAMP): pyproject.toml agent/install/posix/batched.c
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, this is " + sys.version)'
	@$(PYTHON) -m venv $(VENV) || { echo 'The venv module of Python is missing; on Debian: apt install python3-venv' >&2; exit 1; }
	@echo 'Installing into $(VENV) (once) ...'
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# The daemon and its workers compile nothing themselves.
	@$(BIN)/python -m compileall -q agent
	@touch $(STAMP)

clean:                    ## Remove what these commands have made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
