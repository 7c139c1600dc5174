# The commands of this repository; `make help` lists them. CI calls the same ones (.ci/run).
#
# Everything is built with one profile, --release, into one directory that outlives the checkout:
# Zenoh and RocksDB take half an hour from source on two cores, once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO_TARGET_DIR ?= $(HOME)/.cache/weir/target
override CARGO_TARGET_DIR := $(abspath $(CARGO_TARGET_DIR))
export CARGO_TARGET_DIR
# Where rustup puts cargo, for a shell that was opened before rustup was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

WEIR_BIN := $(CARGO_TARGET_DIR)/release/weir
WEIR_PYTHON := $(CARGO_TARGET_DIR)/venv/bin/python
# Where the benchmarks find the stock router, if `bench-stock` has built it.
WEIR_BENCH_STOCK ?= $(CARGO_TARGET_DIR)/stock
# The policies that ship, compiled.
WEIR_BENCH_POLICIES ?= $(CARGO_TARGET_DIR)/guests/wasm
# Tests and benchmarks are told in the environment; `run` is not, because the router reads its
# settings from variables that begin like these.
test test-slow bench bench-forward demo demo-mirror demo-tunnel: export WEIR_BIN := $(WEIR_BIN)
test test-slow bench bench-forward demo demo-mirror demo-tunnel: export WEIR_PYTHON := $(WEIR_PYTHON)
bench bench-stock: export WEIR_BENCH_STOCK := $(WEIR_BENCH_STOCK)
bench bench-stock demo-mirror demo-tunnel: export WEIR_BENCH_POLICIES := $(WEIR_BENCH_POLICIES)

# In CI a warning is an error and Cargo.lock must already be right.
LOCKED := $(if $(CI),--locked)
CLIPPY := cargo clippy --release --workspace --all-targets $(LOCKED)
DENY_WARNINGS := -- -D warnings
RUN_TESTS := tests/tools/run-tests

# The crates that compile in seconds: no Zenoh, no RocksDB.
PURE_CRATES := weir-core weir-journal weir-settings weir-backend-api weir-backend-memory weir-backend-filesystem weir-backend-influxdb weir-sim weir-tidy
PURE := $(PURE_CRATES:%=-p %)
# The guests are a workspace of their own; here as ordinary crates, their modules in router/policy/tests.
GUESTS := --manifest-path policies/Cargo.toml --workspace
TEST_GUESTS := cargo fmt --manifest-path policies/Cargo.toml --all --check \
    && cargo clippy $(GUESTS) --all-targets $(LOCKED) -- -D warnings \
    && cargo test $(GUESTS) --no-fail-fast $(LOCKED)

CARGO_TEST := cargo test --release --no-fail-fast $(LOCKED)
# The programs that the tests start have to be there before them.
BUILD_ALL := cargo build --release --workspace --all-targets $(LOCKED)
# Tests that take minutes (kill -9 in a loop, full disks, a million keys) live in files named
# tests/slow*.rs, so that a name and no attribute tells them apart.
SLOW := 'slow*'

SEEDS ?= 1000

##@ Use

.PHONY: run
run: setup-build ## Install what the build needs, build, start the router on embedded defaults
	cargo build --release -p weir $(LOCKED)
	exec $(WEIR_BIN) run

.PHONY: demo
demo: setup venv ## Three shard routers and a real flight, checked sample by sample; DEMO="--drones 30"
	cargo build --release -p weir $(LOCKED)
	$(WEIR_PYTHON) examples/shards/demo.py $(DEMO)

.PHONY: demo-mirror
demo-mirror: setup venv ## Two mirrored routers, a flight, a line that breaks, and what both hold compared; DEMO="--samples 60000"
	cargo build --release -p weir $(LOCKED)
	policies/build --out $(WEIR_BENCH_POLICIES) policies/resolve/grow-only-set
	$(WEIR_PYTHON) examples/mirror/demo.py $(DEMO)

.PHONY: demo-tunnel
demo-tunnel: setup venv ## A vehicle in a tunnel: the cable pulled and put back, and both ends compared; DEMO="--tunnel 60"
	cargo build --release -p weir $(LOCKED)
	policies/build --out $(WEIR_BENCH_POLICIES) policies/prioritize/alarms-first
	$(WEIR_PYTHON) examples/tunnel/demo.py $(DEMO)

##@ Check

.PHONY: test
test: setup venv ## Everything: format, clippy, all tests, the slow ones and the real client included
	@$(RUN_TESTS) \
	    "format: cargo fmt --all --check" \
	    "clippy: $(CLIPPY) $(DENY_WARNINGS)" \
	    "guests: $(TEST_GUESTS)" \
	    "one build: tests/tools/build-once rocksdb zenoh zenoh-plugin-rest wasmtime -- --workspace" \
	    "tests: $(BUILD_ALL) && $(CARGO_TEST) --workspace"

.PHONY: test-fast
test-fast: setup ## The tests of the pure crates only: seconds, no Zenoh, no RocksDB
	@$(RUN_TESTS) "pure crates: $(CARGO_TEST) $(PURE)"

.PHONY: test-slow
test-slow: setup venv ## The tests that take minutes, alone (`make test` has them too)
	@$(RUN_TESTS) "slow: $(BUILD_ALL) && $(CARGO_TEST) --workspace --test $(SLOW)"

.PHONY: sim
sim: setup-build ## Simulate SEEDS histories (default 1000); SEED=N replays one; ONLY=forwarding plays one kind
	cargo run --release -p weir-sim $(LOCKED) -- $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

.PHONY: bench
bench: setup-build venv policies ## Measure the router against its yardsticks; BENCH="--quick" passes options on
	cargo build --release -p weir -p weir-bench $(LOCKED)
	$(CARGO_TARGET_DIR)/release/weir-bench $(BENCH)
	$(MAKE) bench-calls

# Those that ship and need no settings.
MEASURED := hot-key-spread latest-only keep-first grow-only-set max-value
.PHONY: bench-forward
bench-forward: setup-build venv ## Measure what a link does when an outage ends, against plain Zenoh
	cargo build --release -p weir -p weir-bench $(LOCKED)
	$(CARGO_TARGET_DIR)/release/weir-bench --only forward $(BENCH)

.PHONY: bench-calls
bench-calls: policies ## Measure what a call of a policy costs against an empty call
	cargo build --release -p weir -p weir-policy --bins --example call_costs $(LOCKED)
	$(CARGO_TARGET_DIR)/release/examples/call_costs --no-gate $(MEASURED:%=$(WEIR_BENCH_POLICIES)/%.wasm={})

.PHONY: policies
policies: setup-build ## Build the policies that ship
	policies/build --out $(WEIR_BENCH_POLICIES) policies/{route,resolve,prioritize}/*/

.PHONY: bench-stock
bench-stock: setup-build ## Build the stock router for `bench` to compare with (an hour, outside the checkout)
	tests/bench/stock/build $(WEIR_BENCH_STOCK)

.PHONY: lint
lint: setup-build ## Clippy on everything (warnings are errors in CI)
	$(CLIPPY) $(if $(CI),$(DENY_WARNINGS))

##@ Keep house

.PHONY: setup
setup: ## Install what the build and the tests need; instant when it is all there
	@tests/tools/setup build test

.PHONY: setup-build
setup-build: ## Install what the build alone needs
	@tests/tools/setup build

.PHONY: venv
venv: setup ## Make the Python environment of the end-to-end tests
	@tests/tools/venv $(CARGO_TARGET_DIR)/venv

.PHONY: fmt
fmt: ## Format every crate
	cargo fmt --all
	cargo fmt --manifest-path policies/Cargo.toml --all

.PHONY: clean
clean: ## Remove what the workspace's own crates built (dependencies stay: delete $CARGO_TARGET_DIR for those)
	cargo clean --workspace

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	    /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
