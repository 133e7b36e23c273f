# SPDX-License-Identifier: Apache-2.0
# Every target brings what it needs: `setup` installs the pinned Node and the tools with any npm.
# The Node of the machine is used for npm alone.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x64)
OTHER_ARCH := $(if $(filter arm64,$(ARCH)),x64,arm64)
NODE := node_modules/node-linux-$(ARCH)/bin/node
RUN := $(NODE) --disable-warning=ExperimentalWarning

.PHONY: help setup check fix generate build image test bench demo demo-nodes clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the pinned Node and the tools (instant when nothing changed)
	@sh hack/setup.sh $(NODE)

check: setup ## format, types, lint, imports, unused code, file headers
	@$(RUN) hack/check.ts

fix: setup ## format the sources and repair what the linter can
	@$(RUN) hack/check.ts --fix

generate: setup ## write generated files anew
	@$(RUN) hack/generate.ts

build: setup ## programs of both architectures into dist/ and dist/<other>/
	@$(RUN) hack/build.ts
	@$(RUN) hack/build.ts --arch=$(OTHER_ARCH)

image: setup ## OCI image layouts of both architectures into dist/images/
	@$(RUN) hack/image.ts

test: setup ## every tier, or TIERS="static unit integration nodes interop chart cluster"
	@$(RUN) hack/run-tiers.ts $(TIERS)

bench: setup ## measure side by side with nginx
	@$(RUN) hack/build.ts
	@$(RUN) test/bench/main.ts

demo: setup ## pull through the mirror on this machine
	@$(RUN) hack/image.ts --arch=$(ARCH)
	@$(RUN) test/demo/main.ts

demo-nodes: setup ## several containerds that share one image (root)
	@$(RUN) hack/image.ts --arch=$(ARCH)
	@$(RUN) --experimental-ffi test/demo/nodes.ts

clean: ## remove dist/ and caches, keep node_modules/
	rm -rf dist .cache coverage
