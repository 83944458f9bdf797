# Each target does its own set-up; see README.md.
.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-interop bench asan fuzz format lint tidy clean

# The compiler's own Python-independent tools come from Debian, torch from the virtual environment.
BUILD = cmake --build --preset

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## install what the build needs
	@scripts/setup.sh build

build: setup ## the program, build/blockptq
	@cmake --preset release -DBLOCKPTQ_TESTS=OFF -DBLOCKPTQ_BENCHMARKS=OFF >/dev/null
	@$(BUILD) release --target blockptq_cli

demo: build ## the main job on the small model that ships with the project
	@scripts/demo.sh

test: ## all tests
	@scripts/setup.sh build test
	@cmake --preset release -DBLOCKPTQ_TESTS=ON -DBLOCKPTQ_BENCHMARKS=OFF >/dev/null
	@$(BUILD) release
	@ctest --preset release --parallel 2

test-interop: build ## deployed folders in other people's libraries (own virtual environment, 4 GB)
	@scripts/setup.sh interop
	@PYTHONPATH=tests .venv-interop/bin/python -m pytest -q -rs -p no:cacheprovider tests/interop

bench: ## all benchmarks: ratios against named baselines
	@scripts/setup.sh build test
	@cmake --preset release -DBLOCKPTQ_BENCHMARKS=ON >/dev/null
	@$(BUILD) release --target blockptq_bench blockptq_cli
	build/blockptq_bench

asan: ## all unit tests and bad input under AddressSanitizer and UBSan, built by clang
	@scripts/setup.sh build test lint
	@cmake --preset asan >/dev/null
	@$(BUILD) asan
	@ctest --preset asan --parallel 2 -L unit --no-tests=error
	@ctest --preset asan --parallel 2 -R '^test_bad' --no-tests=error

fuzz: ## what parses files, under the same: its unit tests, then every fuzz target for a few seconds
	@scripts/setup.sh build test lint
	@cmake --preset asan >/dev/null
	@$(BUILD) asan --target core_tests fuzzers
	@build-asan/core_tests --gtest_brief=1
	@scripts/fuzz.sh 5

format: ## rewrite all sources in the project's format
	@find src tests -name '*.h' -o -name '*.cpp' | xargs clang-format -i

lint: ## format and layers, checked
	@scripts/setup.sh lint
	@find src tests -name '*.h' -o -name '*.cpp' | xargs clang-format --dry-run -Werror
	@python3 scripts/check_layers.py

tidy: ## clang-tidy, warnings are errors; SINCE=COMMIT: only the sources that differ from it
	@scripts/setup.sh build test lint
	@scripts/tidy.sh $(SINCE)

clean: ## remove every build
	rm -rf build build-dev build-asan build-tidy
