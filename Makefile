# Two commands matter: `make demo` (from nothing to a trained adapter) and `make test` (everything). Both set up what they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

UV := $(shell command -v uv 2>/dev/null || echo $(HOME)/.cache/finetune/uv/bin/uv)
RUN := $(UV) run --no-sync
PYTEST := $(RUN) pytest
# Unit tests wait for processes of their own half of the time.
UNIT_WORKERS := $(shell expr 2 \* $$(nproc))

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: env
env: ## Python environment (.venv) from the lock file
	@command -v $(UV) >/dev/null || scripts/install-uv $(UV:/bin/uv=)
	@$(UV) sync --all-packages --frozen --quiet

.PHONY: demo
demo: env ## From nothing to a trained adapter: cluster, chart, job, pause, resume, result
	@$(RUN) python -m finetune_cli.demo

.PHONY: demo-local
demo-local: env ## The same job as processes of this machine, without a cluster
	@$(RUN) python -m finetune_cli.demo --local

.PHONY: demo-model
demo-model: env ## Only the demo's tiny model, into the store of the cluster that kubectl reaches (docs/tutorial.md)
	@$(RUN) python -m finetune_cli.demo --model

.PHONY: demo-down
demo-down: env ## Remove everything the demo made
	@$(RUN) python -m finetune_cli.demo --down

.PHONY: test
test: env ## Every test, with all set-up
	@$(MAKE) --no-print-directory -j2 checks gitops
	@$(MAKE) --no-print-directory integration e2e

# What needs no cluster runs while the cluster's programs and images are built, with less right to the processors.
.PHONY: checks
checks: env
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory exactness
	@$(MAKE) --no-print-directory unit

.PHONY: lint
lint: env ## Formatting, types, import rules, generated files
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python -m finetune_api generate --check
	$(RUN) python helm/sync.py --check
	$(RUN) python helm/readme.py --check
	$(RUN) python deploy/argocd/render.py --check

.PHONY: unit
unit: env tools ## Fast tests without a cluster
	$(PYTEST) -n $(UNIT_WORKERS) --dist loadfile --durations 12 tests/unit

.PHONY: exactness
exactness: env ## Resumed = never interrupted, on CPU, 1 and 2 ranks
	$(PYTEST) tests/exactness

.PHONY: tools
tools: env
	@$(RUN) finetune-cluster tools minio helm helm3 gitops argocd prometheus >/dev/null

.PHONY: cluster
cluster: env ## A Kubernetes cluster: KUBE_CONTEXT, else kind, else a local node
	@$(RUN) finetune-cluster up

.PHONY: platform
platform: tools cluster
	@$(RUN) finetune-cluster images all

.PHONY: gitops
gitops: platform
	@$(RUN) finetune-cluster tools source-controller kustomize-controller >/dev/null

.PHONY: integration
integration: platform ## Against a real kube-apiserver
	FINETUNE_REQUIRE_CLUSTER=1 $(PYTEST) tests/integration

.PHONY: e2e
e2e: gitops ## Real pods: train, pause, resume, fail, recover
	FINETUNE_REQUIRE_CLUSTER=1 $(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder --durations 12 -m "not alone" tests/e2e
	FINETUNE_REQUIRE_CLUSTER=1 $(PYTEST) --durations 12 -m alone tests/e2e

.PHONY: soak
soak: gitops ## The same tests with more seeds (hours)
	FINETUNE_SOAK=1 FINETUNE_REQUIRE_CLUSTER=1 $(PYTEST) tests/unit/finetune_operator tests/exactness tests/e2e

.PHONY: oldest
oldest: env ## The tests that need a cluster on the oldest Kubernetes that the chart supports, in place of the cluster that runs
	@$(RUN) finetune-cluster down
	FINETUNE_KUBERNETES=1.32 $(MAKE) --no-print-directory integration e2e
	@$(RUN) finetune-cluster down

.PHONY: matrix
matrix: env ## Every method, adapter and strategy together; rewrites docs/reference/exactness.md
	FINETUNE_MATRIX=1 $(PYTEST) tests/exactness -m matrix
	$(RUN) python -m tests.support.matrix

.PHONY: reliability
reliability: env ## Rewrite docs/reliability.md from the faults that the tests run here have tried
	$(RUN) python -m tests.support.reliability

.PHONY: generate
generate: env ## Rewrite CRDs and reference docs from the models
	$(RUN) python -m finetune_api generate
	$(RUN) python helm/sync.py
	$(RUN) python helm/readme.py
	$(RUN) python deploy/argocd/render.py
	$(RUN) ruff format .

.PHONY: pictures
pictures: env tools ## Draw the dashboards for docs/dashboards.md
	$(RUN) python -m tests.support.pictures

.PHONY: bench
bench: platform ## Benchmarks; prints ratios measured side by side
	$(RUN) python -m benchmarks

.PHONY: down
down: env ## Stop the cluster (keeps the build cache)
	@$(RUN) finetune-cluster down
