#!/usr/bin/env bash
# clang-tidy over every source of the library and the program, all processors at work; fails on the first finding.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset tidy >/dev/null
find src -name '*.cpp' ! -name '*_test.cpp' ! -name '*_bench.cpp' ! -name '*_fuzz.cpp' -print0 |
  xargs -0 -n 1 -P "$(nproc)" sh -c 'clang-tidy --quiet -p build-tidy "$0" 2>/dev/null || { echo "clang-tidy: $0" >&2; exit 1; }'
echo "clang-tidy: clean"
