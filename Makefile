# `make` shows what there is. CI runs .ci/run, which is these targets.
SHELL := /bin/bash -eu -o pipefail
GO ?= go
HTTP ?= 127.0.0.1:8080
DATA ?= data
FUZZTIME ?= 10s
BENCH ?=
CHAOS ?= 30m
CHAOS_SEED ?=
CHAOS_RUN ?= .
CHAOS_RACE ?= -race
KUBERNETES ?=
TO ?=

# Every module of the workspace.
MODULES := $(shell sed -n 's|^\t\./||p' go.work)

.PHONY: help run build test test-long chaos test-kubernetes test-deps lint lint-deploy fmt conformance fuzz bench bench-long bench-web screenshots screenshot settings adr-index npm-package module-path test-gowork-off clean

help: ## this list
	@echo "Parley. make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 20
	@echo "Settings: HTTP=$(HTTP) DATA=$(DATA) FUZZTIME=$(FUZZTIME) CHAOS=$(CHAOS)"

run: build ## build and start everything in one process, with demo users, on HTTP, keeping its data in DATA
	exec bin/parley serve --demo --http $(HTTP) --data $(DATA)

build: ## all programs, into bin/
	CGO_ENABLED=0 $(GO) build -o bin/ ./cmd/parley $(wildcard ./services/*/cmd/*)

# Tests that build programs and start them: Go's cache does not know of what these consist, so they run every time.
SYSTEM := /tests/|/cmd/parley$$

# Presence has bounds in seconds, so its processes do not share the machine with other tests; nor do those of the short chaos run.
# Unit tests wait more than they compute: four packages at a time.
test: test-deps ## vet, then all tests of all modules under the race detector
	$(GO) vet work
	$(GO) test -race -timeout 15m -p 4 $$($(GO) list work | grep -vE '$(SYSTEM)')
	$(GO) test -race -count=1 -timeout 25m $$($(GO) list work | grep -E '$(SYSTEM)' | grep -v '/tests/presence$$')
	$(GO) test -race -count=1 -timeout 15m ./tests/presence
	$(GO) test -race -count=1 -timeout 10m -tags chaos -run '^TestMix$$' ./tests/chaos

test-long: test-deps ## NATS away for three minutes, Redis for one; gateways lose NATS 20 times; 23,000 idle connections; presence against its model in 120 cases
	cd tests && PARLEY_LONG=1 $(GO) test -race -count=1 -p 1 -timeout 30m ./outage ./presence
	cd services/gateway && PARLEY_LONG=1 $(GO) test -race -count=1 -timeout 30m -run TestPresenceEqualsTheModel ./internal/presence

chaos: test-deps ## break everything for CHAOS=30m under people who chat, then check; CHAOS_SEED=N repeats a run, CHAOS_RUN=TestMix takes some of the tests, CHAOS_RACE= is three times as fast
	cd tests/chaos && PARLEY_CHAOS=$(CHAOS) PARLEY_CHAOS_SEED=$(CHAOS_SEED) $(GO) test $(CHAOS_RACE) -tags chaos -count=1 -p 1 -timeout 0 -v -run '$(CHAOS_RUN)' . ./checker ./link

test-kubernetes: test-deps ## install, roll and break the chart on a cluster of three nodes (K8S_LAB); KUBERNETES="-run install" for one scenario
	tests/kubernetes/run $(KUBERNETES)

test-deps: ## install what the tests need by apt-get and npm, or say what is missing
	@.ci/test-deps

lint: bin/staticcheck ## gofmt, go vet, staticcheck, sizes of files, the list of decisions
	@bad=$$(gofmt -l client cmd pkg services tests); if [ -n "$$bad" ]; then echo "not formatted (make fmt):"; echo "$$bad"; exit 1; fi
	$(GO) vet work
	@for m in $(MODULES); do echo "staticcheck $$m"; (cd $$m && $(CURDIR)/bin/staticcheck ./...) || exit 1; done
	@.ci/sizes
	@.ci/adr-index | diff docs/adr/README.md - || { echo "docs/adr/README.md is not the list of decisions: make adr-index"; exit 1; }

bin/staticcheck: .ci/tools/go.mod .ci/tools/go.sum
	GOWORK=off $(GO) build -C .ci/tools -o $(CURDIR)/bin/staticcheck honnef.co/go/tools/cmd/staticcheck

lint-deploy: bin/chart ## the compose file; the Helm chart: lint, all variants rendered and read strictly; with a k8s-lab also schemas and an API server's dry run
	@.ci/lint-deploy

bin/chart: $(wildcard .ci/tools/chart/*.go) .ci/tools/chart/go.mod .ci/tools/chart/go.sum
	GOWORK=off CGO_ENABLED=0 $(GO) build -C .ci/tools/chart -o $(CURDIR)/bin/chart .

fmt: ## format everything
	gofmt -w client cmd pkg services tests

conformance: ## the suites of Socket.IO's authors, where they can be reached (or ENGINEIO_SUITE and SOCKETIO_SUITE name folders)
	@.ci/conformance

fuzz: ## every fuzz target for FUZZTIME
	@.ci/fuzz $(FUZZTIME) $(MODULES)

bench: test-deps ## measure the budgets, in about nine minutes; BENCH="-only latency" for one, BENCH=-help lists them
	$(GO) run ./tests/bench $(BENCH)

bench-long: test-deps ## the same and more, in about half an hour, written into docs/benchmarks.md
	$(GO) run ./tests/bench -long -into docs/benchmarks.md

bench-web: test-deps build ## scrolling and memory of the web client, with 10,000 contacts and 50,000 messages, in Chromium
	node tests/browser/bench.js

screenshots: test-deps build ## those of the README, anew
	node tests/browser/screenshots.js

screenshot: ## draw the terminal client again, into docs/img/terminal.svg
	cd cmd/parley && $(GO) test -count=1 -run '^TestChatScreenshot$$' . -screenshot $(CURDIR)/docs/img/terminal.svg

settings: ## write what parley config prints into docs/operations.md
	cd cmd/parley && $(GO) test -count=1 -run '^TestSettingsAreAllListed$$' . -write-settings

adr-index: ## write the list of decisions, docs/adr/README.md
	@.ci/adr-index >docs/adr/README.md

npm-package: test-deps ## the JavaScript SDK with its types, as bin/parley-client-VERSION.tgz
	@mkdir -p bin
	cd client/js && PATH="$(CURDIR)/tests/browser/node_modules/.bin:$$PATH" npm pack --silent --pack-destination $(CURDIR)/bin

module-path: ## rename all modules to where your copy lives: TO=github.com/you/parley
	@.ci/module-path "$(TO)"

test-gowork-off: ## build and vet every module by itself, as somebody who imports it does
	@for m in $(MODULES); do echo "GOWORK=off $$m"; (cd $$m && GOWORK=off $(GO) build ./... && GOWORK=off $(GO) vet ./...) || exit 1; done

clean: ## remove what was built; the data folder stays
	rm -rf bin
