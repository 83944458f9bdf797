#!/usr/bin/env bash
# clang-tidy over the library and the program, all processors at work; fails when it finds something.
#   scripts/tidy.sh [COMMIT]     all sources, or those that differ from COMMIT (of a header: the source of its name)
set -euo pipefail
cd "$(dirname "$0")/.."
since=${1:-}
sources() {
  if [ -n "$since" ]; then
    git diff --name-only --diff-filter=d "$since" -- src | sed 's/\.h$/.cpp/' | sort -u |
      while read -r source; do [ ! -f "$source" ] || echo "$source"; done
  else
    find src -name '*.cpp'
  fi | sed -E '/_(test|bench|fuzz)\.cpp$/d; /\.cpp$/!d'
}
cmake --preset tidy >/dev/null
sources | xargs -r -n 1 -P "$(nproc)" sh -c \
  'clang-tidy --quiet -p build-tidy "$0" 2>/dev/null || { echo "clang-tidy: $0" >&2; exit 1; }'
echo "clang-tidy: clean"
