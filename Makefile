# `make help` lists what there is. CI (.ci/run) calls the same targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

BIN := .venv/bin
LIB := gismo_core/_lib/libgismo.so
NATIVE := $(shell find gismo_core -path '*/_lib' -prune -o \( -name '*.c' -o -name '*.h' -o -name CMakeLists.txt \) -print)
C_FILES := $(shell find gismo_core/native tests/native tests/sim -name '*.[ch]' 2>/dev/null)
# More arguments for pytest: make test ARGS='-k name -x'
ARGS ?=
# Beside one another, whole files each; in the order of their names, which has the long ones first. TEST_JOBS=0: one after the other.
TEST_JOBS ?= 2

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv:
	@tools/setup.sh

.PHONY: setup
setup: venv build ## make .venv with everything and build the library; quiet when there is nothing to do

.PHONY: build
build: $(LIB) ## build libgismo.so into the source tree (after a change of the C core)

$(LIB): $(NATIVE) pyproject.toml tools/build.sh | venv
	@tools/build.sh

.PHONY: test
test: setup ## all tests of some minutes: C programs, plain and with sanitizers, and Python
	@$(BIN)/python -m pytest -m 'not long and not integration and not e2e' \
	  --numprocesses '$(TEST_JOBS)' --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-integration
test-integration: setup ## the operator against a real kube-apiserver and etcd, built from Go modules the first time
	@$(BIN)/python tests/kube/binaries.py >/dev/null
	@$(BIN)/python -m pytest -m integration --numprocesses '$(TEST_JOBS)' --dist loadfile tests/integration $(ARGS)

# A stock image of kind for the nodes, where a registry is at hand: make e2e-up NODE_IMAGE=kindest/node:v1.37.2
NODE_IMAGE ?=

.PHONY: e2e-up
e2e-up: setup ## a cluster of three nodes with KubeRay on this machine, built from packages; prints its KUBECONFIG
	@PYTHONPATH=tests:tests/kube $(BIN)/python -m e2e up --node-image '$(NODE_IMAGE)'

.PHONY: kind-up
kind-up: setup ## the same cluster with Gismo from this tree and a pool in it, to try it; says what to type next
	@PYTHONPATH=tests:tests/kube $(BIN)/python -m e2e try --node-image '$(NODE_IMAGE)'

.PHONY: e2e-down
e2e-down: setup ## take that cluster away, and the container engine if e2e-up started it
	@PYTHONPATH=tests:tests/kube $(BIN)/python -m e2e down

.PHONY: e2e
e2e: e2e-up ## the tests on that cluster, which is taken away afterwards (KEEP=1: it stays)
	@rc=0; $(BIN)/python -m pytest -m 'e2e and not long' tests/e2e $(ARGS) || rc=$$?; \
	  [[ -n '$(KEEP)' ]] || $(MAKE) e2e-down; exit $$rc

.PHONY: e2e-long
e2e-long: e2e-up ## all tests on that cluster, the long ones too: an hour
	@rc=0; $(BIN)/python -m pytest -m e2e --timeout 0 tests/e2e $(ARGS) || rc=$$?; \
	  [[ -n '$(KEEP)' ]] || $(MAKE) e2e-down; exit $$rc

.PHONY: test-long
test-long: setup ## the tests that take long: fuzzing, soaks
	@$(BIN)/python -m pytest -m 'long and not e2e' --timeout 0 -o faulthandler_timeout=0 $(ARGS)

HOURS ?= 1
JOBS ?= 1

.PHONY: test-fuzz-long
test-fuzz-long: setup ## damaged stores under the fuzzer (HOURS=1 JOBS=1); the parts are counted together in docs/results.md
	@PYTHONPATH=tests:. $(BIN)/python -m fuzz.long --hours '$(HOURS)' --jobs '$(JOBS)'

.PHONY: test-mutation
test-mutation: setup ## each flush, fence and invalidation of the core left out in turn, under the simulator; the table of docs/results.md
	@PYTHONPATH=tests:. $(BIN)/python -m sim.mutation $(ARGS)

SCENARIO ?= all

.PHONY: torch
torch: setup
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet torch || \
	  echo 'torch could not be installed, so what needs it is left out' >&2

.PHONY: test-ray-long
test-ray-long: torch ## torch tensors, then scenarios of freeing on Ray again and again (HOURS=1 JOBS=1 SCENARIO=all), counted in docs/results.md
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then $(BIN)/python -m pytest -m long tests/ray/test_tensors.py; fi
	@PYTHONPATH=tests:. $(BIN)/python -m ray_scenarios.long --hours '$(HOURS)' --jobs '$(JOBS)' --scenario '$(SCENARIO)'

RAY_TESTS ?=

.PHONY: test-ray-upstream
test-ray-upstream: setup ## some of Ray's own test files with Gismo and without: RAY_TESTS='PATH…' of a checkout (ARGS=--help)
	$(if $(strip $(RAY_TESTS) $(ARGS)),,@echo "make test-ray-upstream RAY_TESTS='…/python/ray/tests/test_actor.py …'" >&2; exit 2)
	@PYTHONPATH=tests:. $(BIN)/python -m ray_upstream $(RAY_TESTS) $(ARGS)

.PHONY: ray-old
ray-old: setup ## an environment with the oldest Ray that is tested, outside the tree; prints its Python
	@$(BIN)/python tests/ray_old.py

.PHONY: crds
crds: setup ## make crds/ and those of the chart anew from the models of the operator's API
	@$(BIN)/python -m gismo_operator.crdgen crds charts/gismo

.PHONY: demo
demo: setup ## Ray with Gismo beside stock Ray, some minutes; ARGS=store: the store alone, half a minute
	@$(BIN)/python -m gismo_core.demo $(ARGS)

.PHONY: bench
bench: bench-store bench-ray bench-kubernetes ## all figures of docs/results.md (some: make bench-ray ARGS='--only ray.put*')

.PHONY: sim
sim: setup ## the simulator of memory that is not coherent: build/native-plain/gismo-sim (--help)
	@PYTHONPATH=tests $(BIN)/python -c 'from native_build import built; import sys; print(built("plain", "gismo-sim"), file=sys.stderr)'

.PHONY: bench-store
bench-store: setup sim ## the store's figures
	@$(BIN)/gismo bench store $(ARGS)

.PHONY: bench-ray
bench-ray: torch ## Ray with Gismo against stock Ray; installs torch, some gigabytes, for the one row that needs it
	@$(BIN)/gismo bench ray $(ARGS)

.PHONY: bench-kubernetes
bench-kubernetes: setup ## figures of operator, device plugin and cluster, which it brings up (some: ARGS='--only deviceplugin*')
	@PYTHONPATH=tests:tests/kube $(BIN)/python -m bench_kubernetes $(ARGS)

.PHONY: lint
lint: venv ## ruff, mypy --strict, import contracts, clang-format
	@echo 'ruff'; $(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	@echo 'mypy --strict'; $(BIN)/mypy
	@echo 'import contracts'; $(BIN)/lint-imports --no-logo
	@echo 'clang-format'; $(BIN)/clang-format --dry-run -Werror --ferror-limit=5 $(C_FILES) || \
	  { echo 'make format puts that right' >&2; exit 1; }

.PHONY: format
format: venv ## put all sources into the project's format
	@$(BIN)/ruff check --quiet --fix-only . ; $(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(C_FILES)

.PHONY: dist
dist: venv ## wheel and sdist into dist/
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@$(BIN)/python -c 'from scikit_build_core.build import build_sdist as b; print("dist/" + b("dist"))'

.PHONY: images
images: venv ## the image of operator and agent (BASE=… PUSH=… IMAGE=gismo TAG=version ENGINE=docker|podman|buildah)
	@BASE='$(BASE)' BUILD_ARGUMENTS='$(BUILD_ARGUMENTS)' PUSH='$(PUSH)' IMAGE='$(IMAGE)' TAG='$(TAG)' ENGINE='$(ENGINE)' tools/images.sh

.PHONY: clean
clean: ## remove everything that was built, .venv too
	@rm -rf .venv build dist gismo_core/_lib gismo_core/_fast*.so .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
