# The few commands of the project; each says what it does. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.ready ## make the Python environment in .venv from the lock (hashes checked)

$(VENV)/.ready: requirements-dev.lock
	tools/make-venv $(VENV)
	@touch $@

packages: setup ## install the Debian packages that the tests and the lab need (root or sudo; says which)
	tools/install-debian-packages roles lab trust
	python tests/unit/trust/boot/boot_bed.py

lint: setup ## ruff, mypy, yamllint, ansible-lint, syntax check
	tools/run_stages.py lint

test: setup ## lint, unit tests on each Python here, role scenarios, an appliance in a VM with its zones, faults and reset
	tools/run_stages.py all

test-unit: setup ## unit tests on the main Python
	tools/run_stages.py unit

test-roles: setup ## each role in a systemd container
	tools/run_stages.py roles

test-appliance: setup ## in the lab VM: plan, apply, reboot, verify, apply again, zones, faults, reset
	tools/run_stages.py appliance

test-extended: setup ## all tests in the VM, the long ones too: every check broken, every lockout, the lab itself
	tools/run_stages.py extended

lab: setup ## from nothing to a proven appliance in a VM: up, apply, reboot, verify
	tools/install-debian-packages lab
	tools/lab_tour.py

bench: setup ## time the no-op apply in the finished lab, write docs/reference/performance.md
	tools/bench.py

docs: setup ## regenerate everything in docs and READMEs that comes from code
	python tools/generate_docs.py
	python tools/role_readme.py

lock: setup ## resolve pyproject.toml again into the two lock files
	tools/lock

.PHONY: help setup packages lint test test-unit test-roles test-appliance test-extended lab bench docs lock
