#!/usr/bin/env bash
# The main job on the model that ships with the project: quantize it to W4A8C8, evaluate the original
# and what was written, and compare.
set -euo pipefail
export LC_ALL=C  # points in numbers
cd "$(dirname "$0")/.."
output=${1:-build/demo}
model=models/tiny-v32-fp8
text=(--seq_len 1024 --max_chunks 32)
rm -rf "$output" "$output.run"

echo "== quantize $model to W4A8C8"
build/blockptq quantize --model "$model" --output "$output"
echo "== evaluate the original in bf16, and what was written in integers"
build/blockptq eval --model "$model" "${text[@]}" --json "$output.run/original.json" >/dev/null
build/blockptq eval --model "$output" "${text[@]}" --reference "$model" \
  --json "$output.run/deployed.json" >/dev/null

# A number of a result, formatted.
value() { printf "$3" "$(sed -n "s/^  \"$2\": \([^,]*\),*$/\1/p" "$output.run/$1.json")"; }
# Bytes of the weights of a folder, in MB.
size() { du -cbL "$1"/*.safetensors | awk 'END { printf "%.2f MB", $1 / 1e6 }'; }
row() { printf '%-22s %12s %12s\n' "$@"; }

echo
row "WikiText-2" original W4A8C8
row perplexity "$(value original ppl %.3f)" "$(value deployed ppl %.3f)"
row "KL divergence" - "$(value deployed kl %.5f)"
row "same first choice" - "$(awk "BEGIN { printf \"%.2f %%\", 100 * $(value deployed top1_agreement %s) }")"
row "weights (FP8 source)" "$(size "$model")" "$(size "$output")"
echo
echo "page: $output.run/report.html"
