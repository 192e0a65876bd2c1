# make demo and make test each do all set-up on a fresh Debian 12 or 13: as root, with git, make and Go.
SHELL := /bin/bash
export PATH := $(PATH):/usr/sbin:/sbin
export MICROVM_CACHE ?= $(HOME)/.cache/microvm-runtime
BIN := $(MICROVM_CACHE)/bin
GO ?= go
STATIC := CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w"

.PHONY: help setup build demo test test-e2e lint bench soak

help: ## Show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## Fetch Firecracker, a kernel and Debian images into $MICROVM_CACHE
	@$(GO) run ./internal/setup/cmd/setup

build: ## Build the CLI and the guest agent
	@mkdir -p $(BIN)
	@$(STATIC) -o $(BIN)/microvm ./cmd/microvm
	@$(STATIC) -o $(BIN)/microvm-agent ./cmd/microvm-agent

demo: setup build ## Show a machine's whole life (NONCE=text)
	@$(STATIC) -o $(BIN)/demo ./examples/demo
	@$(GO) run ./internal/testing/lab/cmd/labrun $(BIN)/demo $(if $(NONCE),-nonce $(NONCE))

test: setup build ## Run all tests (RING=1,2 chooses; FIRECRACKER=path tests another binary)
	@$(GO) run ./internal/testing/cmd/testrun $(if $(RING),-rings $(RING)) $(if $(FIRECRACKER),-firecracker $(FIRECRACKER))

test-e2e: ## Run ring 4 only
	@$(MAKE) --no-print-directory test RING=4

lint: ## Check formatting, vet, staticcheck, modernize, other systems and architectures
	@GO=$(GO) bash tools/lint

soak: setup ## Attack real machines at random for a while (MINUTES=n SEED=s)
	@$(GO) run ./internal/testing/cmd/soak $(if $(MINUTES),-minutes $(MINUTES)) $(if $(SEED),-seed $(SEED))

bench: setup build ## Measure (ONLY=regexp chooses; BENCH_JSON=file, BENCH_CURVES=file)
	@cd bench && $(GO) run . $(if $(ONLY),-only '$(ONLY)')
