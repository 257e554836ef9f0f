SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build man check test test-systemd faults hostile fuzz demo demo-stop bench bench-fleet bench-rollouts bench-dashboard cross deb release

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s%s\n", $$1, $$2 }' Makefile

build: ## the release binaries, target/release/cotter and target/server/cotter-fleet
	@scripts/prepare.sh
	@source scripts/lib.sh && scripts/build-for.sh "$$(host_target)" cotter
	@source scripts/lib.sh && scripts/build-for.sh "$$(host_target)" cotter-fleet

man: ## man pages and completions, into target/manual
	@source scripts/lib.sh && cargo run --quiet --locked --example manual -- target/manual && ls -R target/manual

check: ## format, lints with and without the fleet server, documentation, unit tests; needs neither engine nor registry
	@scripts/check.sh

test: ## format, lints and all tests, with a real engine and a real registry
	@scripts/test.sh

faults: ## the fault matrix: every fault at every boundary, and at random moments on a real engine
	@scripts/faults.sh

hostile: ## a hostile cloud, registry, release, app and client against the release binaries (part of `make test` for root)
	@scripts/hostile.sh

fuzz: ## any compose file, target, release under a strict policy, answer of a cloud or registry; TIME= seconds each, 60 unless said
	@scripts/fuzz.sh $(TIME)

test-systemd: ## the unit as it is shipped, under a real systemd (part of `make test` for root)
	@scripts/test-systemd.sh

demo: ## the release policy, played on this machine's engine; KEEP=1 leaves it running
	@KEEP=$(KEEP) demo/run.sh

demo-stop: ## ends a demo that was kept or interrupted, and removes all it left
	@demo/run.sh stop

bench: ## the budgets, measured beside docker-compose and the engine alone; 10 min after the build
	@scripts/bench.sh

bench-fleet: ## the fleet server with 100,000 devices, beside a bare axum; 3 min after the build; ARGS='--devices N' for another size, ARGS=--postgres for two servers on PostgreSQL
	@scripts/bench-fleet.sh $(ARGS)

bench-rollouts: ## how 1,000 simulated rollouts on 100,000 devices end; ARGS='--runs N' for fewer
	@scripts/bench-rollouts.sh $(ARGS)

bench-dashboard: ## the dashboard with 10,000 devices in a real Chromium; 2 min after the build
	@scripts/bench-dashboard.sh

cross: ## binaries for ARM boards, each weighed and run under qemu with a real engine; ZIG=1 for older systems
	@ZIG=$(ZIG) scripts/cross.sh

deb: ## Debian packages for amd64, arm64 and armhf, target/debian/; ZIG=1 for older systems
	@ZIG=$(ZIG) scripts/deb.sh

release: ## all that a release publishes, into dist/; ARCH="amd64 arm64" for fewer, COTTER_SIGNING_KEY=KEY to sign it
	@ZIG=$(ZIG) scripts/release.sh $(ARCH)
