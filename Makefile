# `make` lists the targets. `make demo` and `make test` set themselves up.
.POSIX:
.PHONY: help install demo test lint types clean

VENV ?= .venv
PYTHON ?= python3
PIP_OPTIONS ?=

# Where the demo's speech and its separator go.
DEMO_DATA ?= results/minimix
DEMO_OUTPUT ?= results/minimix_separator
# What the demo changes in the recipe's settings (the paper's 350 epochs of
# 30 hours each are no demo): a smaller network, some 4 hours of mixtures.
DEMO_OPTIONS ?= --loss si_sdr --number_of_epochs 6 --epoch_size 1200 \
	--batch_size 8 --segment_seconds 2 --dropout 0 \
	--hidden_size 256 --num_layers 2

PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet \
	--disable-pip-version-check $(PIP_OPTIONS)
INSTALLED = $(VENV)/.installed
INSTALLED_DEV = $(VENV)/.installed-dev

help: ## list the targets (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / \
	{ printf "  make %-9s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## create the environment and install the package

$(INSTALLED): setup.py
	@echo "Creating $(VENV) and installing the package and its requirements"
	@echo "(PyTorch is a large download: this takes some minutes, once)."
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable ".[demo,test]"
	@touch $(INSTALLED)

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP_INSTALL) --editable ".[dev]"
	@touch $(INSTALLED_DEV)

demo: $(INSTALLED) ## synthesise speech, train a separator on it, evaluate it
	$(VENV)/bin/python recipes/MiniMix/prepare.py $(DEMO_DATA)
	@mkdir -p $(DEMO_OUTPUT)
	python=`cd $(VENV)/bin && pwd`/python && \
	data=`cd $(DEMO_DATA) && pwd` && \
	output=`cd $(DEMO_OUTPUT) && pwd` && \
	cd recipes/WSJ0Mix/separation && \
	"$$python" train.py hparams/kmeans_danet_spherical.yaml \
		--data_folder "$$data/2speakers" --output_folder "$$output" \
		--dynamic_mixing "$$data/corpus/tr" $(DEMO_OPTIONS)
	@echo "Listen and look: $(DEMO_OUTPUT)/test_2speakers/examples"
	@echo "Figures: $(DEMO_OUTPUT)/test_2speakers/summary.json"

test: $(INSTALLED) ## run the tests and the examples in the docstrings
	$(VENV)/bin/python -m pytest -q --numprocesses auto \
		--maxprocesses 4 --dist loadfile --durations=10 \
		--doctest-modules tests speechbrain_kmdanet

lint: $(INSTALLED_DEV) ## check style: ruff (rules, format) and yamllint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/yamllint .

types: $(INSTALLED_DEV) ## check types, bodies of functions too: mypy
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy recipes/LibriMix
	$(VENV)/bin/mypy recipes/Conversations

clean: ## remove what the demo made (the environment stays)
	rm -rf $(DEMO_DATA) $(DEMO_OUTPUT)
