#!/usr/bin/env bash
# Runs every fuzz target on its seed corpus for SECONDS each:  scripts/fuzz.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5}
for source in $(find src -name '*_fuzz.cpp' | sort); do
  target=$(basename "$source" .cpp)
  corpus=$(mktemp -d)
  build-asan/"$target" -max_total_time="$seconds" -verbosity=0 -print_final_stats=0 \
    "$corpus" tests/fixtures/fuzz/"${target%_fuzz}"
  rm -r "$corpus"
  echo "$target: $seconds s without a finding"
done
