#!/usr/bin/env bash
# The main job on the model that ships with the project: quantize it to W4A8C8 and compare what was written with the original.
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-build/demo}
model=models/tiny-v32-fp8
rm -rf "$output" "$output.run"
echo "== quantize $model to W4A8C8"
build/blockptq quantize --model "$model" --output "$output"
echo "== the original (bf16)"
build/blockptq eval --model "$model" --seq_len 1024 --max_chunks 32
echo "== what was written, run in integers, against the original"
build/blockptq eval --model "$output" --seq_len 1024 --max_chunks 32 --reference "$model"
