"""How fast integers are evaluated, against the bf16 weights that they were made from.

    python bench/integer_speed.py --source BF16_FOLDER --scratch FOLDER

Deploys the source by plain rounding, then evaluates source and deployed folders on the same tokens,
in bf16 and in integers with states in bf16. Figures are tokens/s of the whole evaluation, weights
read while it computes, and as a ratio to the source (more is better, the bar is 1.25). Runs
alternate, so that a change of the machine's load meets all; the best of each counts. A folder of
real tensor sizes: python tests/make_checkpoint.py DIR --preset deepseek --blocks 2 --dense_blocks 0
--experts 16
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from blockptq_testing.program import eval_json, run_blockptq  # noqa: E402

BAR = 1.25


def deploy(source: Path, target: Path, quant_type: str) -> None:
    finished = run_blockptq(
        "deploy", "--input_weight_path", source, "--output_weight_path", target, "--quant_type", quant_type,
        "--no_verify",
    )  # fmt: skip
    if finished.code != 0:
        sys.exit(finished.stderr)


def tokens_per_second(folder: Path, options: argparse.Namespace) -> float:
    result = eval_json(
        options.scratch / "result.json", "--model", folder, "--seq_len", options.seq_len, "--max_chunks",
        options.chunks, "--threads", options.threads,
    )  # fmt: skip
    return float(result["tokens_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--types", nargs="+", default=["w8a8c8", "w4a8c8"])
    parser.add_argument("--seq_len", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    options.scratch.mkdir()
    folders = {"bf16": options.source} | {name: options.scratch / name for name in options.types}
    for name in options.types:
        deploy(options.source, folders[name], name)
    best = dict.fromkeys(folders, 0.0)
    for _ in range(options.repeats):
        for name, folder in folders.items():
            best[name] = max(best[name], tokens_per_second(folder, options))
    shutil.rmtree(options.scratch)
    print(
        f"{options.chunks} x {options.seq_len} tokens, {options.threads} threads, best of {options.repeats}; "
        f"bar {BAR:g}"
    )
    for name, speed in best.items():
        print(f"{name:8} {speed:8.0f} tokens/s {speed / best['bf16']:6.2f} x")


if __name__ == "__main__":
    main()
