# Two commands: `make demo` answers the question, `make test` checks the package. Both call `make install`,
# which makes .venv once (with uv, fetched into it if the machine has none) from the hashed requirements.txt.
.POSIX:
.PHONY: tiny-cell help install demo test test-slow docs notebooks lint format lock clean

VENV = .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
PYTHONS = >=3.12,<3.14

help:
	@echo "make demo      fit the law to the 354 runs and write the answer into out/"
	@echo "make test      ruff, mypy and the tests"
	@echo "make test-slow  execute the notebooks, run the pages of the documentation, look at the site in a browser, fit again"
	@echo "make docs      build the documentation site into docs/_build/html"
	@echo "make notebooks  execute all notebooks in place"
	@echo "make install   make .venv (demo and test call it)"
	@echo "make format    format the code with ruff"
	@echo "make lock      pin the newest versions that pyproject.toml allows"
	@echo "make tiny-cell  train one cell of data/tiny again and compare its loss (JAX in .venv-jax)"
	@echo "make clean     remove what the other targets made, .venv included"

install: $(INSTALLED)

# A uv on the PATH may be a shim that fails, so it is run once before it is trusted.
$(VENV)/uv: requirements-uv.txt
	@mkdir -p $(VENV)
	@if uv --version >/dev/null 2>&1; then \
	  uv=$$(command -v uv); \
	else \
	  python=; for p in python3 python3.13 python3.12 python; do \
	    if $$p -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1; then python=$$p; break; fi; done; \
	  if [ -z "$$python" ]; then echo "make install: no Python 3 and no uv found; install one of them" >&2; exit 1; fi; \
	  echo "fetching uv into $(VENV)"; \
	  if $$python -m venv $(VENV)/bootstrap >/dev/null 2>&1; then \
	    $(VENV)/bootstrap/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.txt; \
	  else \
	    $$python -m pip install -q --disable-pip-version-check --require-hashes --upgrade --target $(VENV)/bootstrap -r requirements-uv.txt; \
	  fi || exit 1; \
	  uv=$$PWD/$(VENV)/bootstrap/bin/uv; \
	fi; \
	printf '#!/bin/sh\nexec "%s" "$$@"\n' "$$uv" > $(VENV)/uv && chmod +x $(VENV)/uv

$(INSTALLED): $(VENV)/uv requirements.txt pyproject.toml
	@$(BIN)/python -c 'import sys; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1 \
	  || $(VENV)/uv venv -q --allow-existing --no-project --python-preference system --python '$(PYTHONS)' $(VENV)
	@echo "installing pinned packages into $(VENV)"
	@$(VENV)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.txt
	@$(VENV)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(INSTALLED)

demo: install
	@$(BIN)/bayesdistill demo --out out

test: install lint
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

# The notebooks run by themselves, because each must stay under two minutes on two cores.
test-slow: install
	@$(BIN)/python -m pytest -m slow --durations 6 tests/test_notebooks.py
	@$(BIN)/python -m pytest -m slow -n 2 --dist loadgroup --durations 12 --ignore tests/test_notebooks.py

docs: install
	@$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs docs/_build/html
	@echo "the site is in docs/_build/html; open docs/_build/html/index.html"

notebooks: install
	@for notebook in notebooks/*.ipynb; do $(BIN)/jupyter-execute --inplace $$notebook || exit 1; done

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(VENV)/uv
	@$(VENV)/uv pip compile -q --universal --generate-hashes --no-header --python-version 3.12 \
	  --group test --group docs --group build pyproject.toml -o requirements.txt
	@echo uv | $(VENV)/uv pip compile -q --universal --generate-hashes --no-header --python-version 3.9 - -o requirements-uv.txt

clean:
	rm -rf $(VENV) out dist build docs/_build .pytest_cache .mypy_cache .ruff_cache

.venv-jax/.installed: $(VENV)/uv data/tiny/requirements.txt
	@$(VENV)/uv venv -q --allow-existing --no-project --python-preference system --python '$(PYTHONS)' .venv-jax
	@$(VENV)/uv pip install -q --python .venv-jax/bin/python --require-hashes -r data/tiny/requirements.txt
	@touch $@

tiny-cell: .venv-jax/.installed
	@.venv-jax/bin/python data/tiny/corpus.py
	@.venv-jax/bin/python data/tiny/train.py --cell sup-d24-0.5M-s0 --compare
