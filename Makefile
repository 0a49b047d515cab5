# The two commands a newcomer needs are `make demo` and `make test`; each sets itself up.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# A worker per core; one that is done takes over half of what another has not begun. Without
# arguments pytest runs in one process, which is how to debug.
PYTEST := $(BIN)/pytest -n auto --dist worksteal
READY  := $(VENV)/.jetsight-ready
SLIM   := $(VENV)/.jetsight-demo-ready
# On a Jetson, TensorRT is a package of the system and of nothing else.
SYSTEM := $(if $(wildcard /etc/nv_tegra_release),--system-site-packages)

.DEFAULT_GOAL := help
.PHONY: help demo test test-engines test-wheels test-gpu test-lerobot lint format bench bench-compile bench-plan clean

help:
	@echo "make demo    compile the shipped model, stream recorded frames, write build/demo/report.html"
	@echo "make test    format check, lint, types and tests: what has to pass before a commit"
	@echo "make lint    only the format check, lint and types"
	@echo "make format  rewrite the code in the house format"
	@echo "make bench   measure this machine, as ratios to torch"
	@echo "make bench-compile  what each TensorRT family costs to build and loses in numbers"
	@echo "make bench-plan  one CEM plan beside stable-worldmodel's own solver, same draws"
	@echo "make test-engines   compile every family of every recipe with TensorRT-RTX; no GPU needed"
	@echo "make test-wheels    resolve what a Jetson installs, for its Pythons; needs a package index"
	@echo "make test-gpu       build, prove and measure engines on this machine's NVIDIA GPU"
	@echo "make test-lerobot  prove with the LeRobot library itself that it reads our recordings"
	@echo "make clean   remove what was built; the environment in $(VENV) stays"
	@echo
	@echo "PYTHON=python3.12 make ... chooses the Python that creates $(VENV), 3.10 or newer."

# The extra `demo` is a part of `dev`, so an environment for the tests serves the demo as it is.
demo: $(if $(wildcard $(READY)),$(READY),$(SLIM))
	$(BIN)/jetsight demo

test: lint
	@$(BIN)/python -c 'import cv2' || { \
	  echo "OpenCV, which the PushT simulator draws with, lacks a system library; run: sudo apt install libgl1 libglib2.0-0" >&2; \
	  exit 1; }
	$(PYTEST)

# What the default tests leave out for time: the large recipe, and every unrolled forecast. Graphs
# of one recipe and opset stay on one worker, which exports them once.
test-engines: $(READY)
	$(PYTEST) --dist loadgroup -m "not gpu and not jetson" tests/compile/pipeline/test_pinned_engines.py

# Wheels for aarch64, Python 3.10 and 3.12: what an installation on a board would find.
test-wheels: $(READY)
	$(BIN)/pytest -m slow -rs tests/test_install.py

# On any NVIDIA GPU with TensorRT or TensorRT-RTX; everything is skipped, with the reason, elsewhere.
# PyCUDA has to be compiled against this machine's CUDA, so it is only asked for where a driver is.
test-gpu: $(READY)
	@if ldconfig -p | grep -q 'libcuda\.so\.1' && ! $(BIN)/python -c 'import pycuda' 2>/dev/null; then \
	  PATH=$$PATH:/usr/local/cuda/bin $(BIN)/pip install --disable-pip-version-check \
	    -c constraints.txt -e '.[jetson]' || \
	  echo "PyCUDA could not be compiled; docs/install.md says what it needs" >&2; \
	fi
	$(BIN)/pytest -m gpu -rs tests/gpu

# The LeRobot library in an environment of its own, reading what we record and the other way round.
test-lerobot: $(READY)
	test -x build/lerobot/bin/lerobot-python || sh tests/train/record/lerobot_venv.sh build/lerobot
	JETSIGHT_LEROBOT=$(CURDIR)/build/lerobot/bin/lerobot-python \
	  $(BIN)/pytest -m slow tests/train/record/test_lerobot_library.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/jetsight bench

bench-compile: $(READY)
	$(BIN)/jetsight bench-compile

# In an environment of its own: stable-worldmodel's requirements are not ours.
bench-plan:
	test -f build/swm-venv/.ready || PYTHON=$(PYTHON) sh benchmarks/swm_venv.sh build/swm-venv
	build/swm-venv/bin/python benchmarks/plan_vs_stable_worldmodel.py

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find train compile runtime tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed again only when what is installed changes. The code itself is linked, never copied.
$(READY): EXTRA := dev
$(SLIM): EXTRA := demo
$(READY) $(SLIM): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "jetsight needs Python 3.10 or newer as '$(PYTHON)'; run: sudo apt install python3, or choose one with PYTHON=..." >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "$(PYTHON) cannot create environments; run: sudo apt install python$$version-venv" >&2; \
	  exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(SYSTEM) --clear $(VENV)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	@# The simulator's OpenCV wants a desktop's libraries; its headless build does without.
	@test $(EXTRA) = demo || $(BIN)/python -c 'import cv2' 2>/dev/null || \
	  $(BIN)/pip install --disable-pip-version-check -c constraints.txt --force-reinstall --no-deps \
	  opencv-python-headless
	@touch $@
