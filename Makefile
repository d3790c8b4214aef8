# Two lines a target; the work is done in Python. Every target sets up what it needs in .venv/.
INVENTORY ?= inventory
PY := .venv/bin/python
LOCAL := .venv/ready

.DEFAULT_GOAL := help
.PHONY: help demo demo-down deploy plan settings docs render verify audit where test unit plan-test host test-vm lint format bench test-faults lock lock-images lock-python audit-python wheels clean

help: ## Show these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(LOCAL): requirements.lock pyproject.toml bootstrap
	@./bootstrap

demo: $(LOCAL) ## See it all: a throwaway workstation becomes a gateway and answers
	@$(PY) -m gatehouse.lab demo

demo-down: $(LOCAL) ## Remove what `make demo` left running
	@$(PY) -m gatehouse.lab demo-down

deploy: $(LOCAL) ## Provision the hosts of the inventory
	@.venv/bin/pyinfra $(INVENTORY) deploy.py

plan: $(LOCAL) ## Show what a deploy would change, without changing anything
	@$(PY) -m gatehouse plan --inventory $(INVENTORY)

settings: $(LOCAL) ## Check the settings and print the table of them
	@$(PY) -m gatehouse settings --inventory $(INVENTORY)

docs: $(LOCAL) ## Write docs/settings.md from the settings
	@$(PY) -m gatehouse docs

render: $(LOCAL) ## Write what each host would get to build/render/
	@$(PY) -m gatehouse render --inventory $(INVENTORY)

verify: $(LOCAL) ## Prove with testinfra that the hosts of the inventory are what they were made to be
	@$(PY) -m gatehouse verify --inventory $(INVENTORY)

audit: $(LOCAL) ## Measure the hosts of the inventory by the CIS Docker Benchmark, and search for secrets
	@$(PY) -m gatehouse audit --inventory $(INVENTORY)

where: $(LOCAL) ## List the files of one component: make where C=redis
	@$(PY) -m gatehouse where $(C)

test: lint unit plan-test host ## Run every test

lint: $(LOCAL) ## Check style and types
	@.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy

unit: $(LOCAL) ## Run the tests that need nothing
	@$(PY) -m pytest tests/unit

plan-test: $(LOCAL) ## Run the tests that plan and apply nothing
	@$(PY) -m pytest tests/plan

host: $(LOCAL) ## Run the tests on a throwaway workstation
	@$(PY) -m tests.lanes tests/host tests/lab --durations=40

test-vm: $(LOCAL) ## Run the tests on a virtual machine: a real kernel, reboots, power cuts (up to an hour)
	@$(PY) -m pytest tests/vm -s --durations=0

format: $(LOCAL) ## Put the code into its one form
	@.venv/bin/ruff format && .venv/bin/ruff check --fix

bench: $(LOCAL) ## Measure deploys, engines, and the gateway against LiteLLM's stock start
	@$(PY) -m gatehouse.bench

test-faults: $(LOCAL) ## Break one part after the other under load: what a client sees, what is lost
	@$(PY) -m gatehouse.faults

lock: lock-python lock-images ## Pin anew: the Python dependencies, and every image by digest

lock-images: $(LOCAL) ## Write the digests of the images that the settings name to images.lock
	@$(PY) -m gatehouse lock --inventory $(INVENTORY)

lock-python: $(LOCAL) ## Pin the Python dependencies: the operator's, and the host's to the same versions
	@.venv/bin/uv pip compile -q pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements.lock
	@.venv/bin/uv pip compile -q --group host -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements-host.lock

audit-python: $(LOCAL) ## Ask whether a pinned Python package has a known hole
	@$(PY) -m gatehouse advisories

wheels: $(LOCAL) ## Fetch the host's Python packages to build/wheels/, to carry them over
	@$(PY) -m gatehouse.wheels

clean: $(LOCAL) ## Remove everything that was built here, images too
	@$(PY) -m gatehouse.lab down --all --images && rm -rf build .venv .mypy_cache .pytest_cache .ruff_cache
