"""What every algorithm and combination gives on one model: perplexity, KL, first choices, time.

    python bench/algorithms.py --model models/tiny-v32-bf16 --scratch FOLDER

Each row is a recipe: `quantize` writes the folder (its seconds are those of the row, without
held-out text), `eval --dtype fp32 --reference` compares it with the source. Excess is the KL minus
that of floating-point weights under the same integers of activations and cache, as a share of plain
rounding's. The order of sums alone moves the KL of a row by some 1e-5 (a token near the boundary of
two experts goes to the other one): compare rows over many chunks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from blockptq_testing.program import REPOSITORY, eval_json, run_blockptq  # noqa: E402

SMOOTH = {"smooth": {}}
ROTATE = {"rotate": {"seed": 0}}
ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("nearest", "none", {}),
    ("scale_search", "none", {}),
    ("scale_search", "learned_clip", {}),
    ("gptq", "none", {}),
    ("gptq", "learned_round", {}),
    ("nearest", "none", SMOOTH),
    ("scale_search", "learned_clip", SMOOTH),
    ("gptq", "none", SMOOTH),
    ("gptq", "learned_round", SMOOTH),
    ("gptq", "learned_round", ROTATE),
    ("gptq", "learned_round", ROTATE | SMOOTH),
]


def write_recipe(file: Path, quant_type: str, rule: dict[str, Any], transforms: dict[str, Any]) -> None:
    """The preset under one more rule, for all linears that it quantizes."""
    preset = json.loads((REPOSITORY / "recipes" / f"{quant_type}.json").read_text())
    preset["linears"] = [linear | rule for linear in preset["linears"]]
    file.write_text(json.dumps(preset | {"transforms": transforms}))


def quantize(options: argparse.Namespace, recipe_file: Path) -> float:
    """Seconds."""
    output = options.scratch / "deployed"
    result = options.scratch / "quantize.json"
    for folder in (output, options.scratch / "deployed.run"):
        shutil.rmtree(folder, ignore_errors=True)
    finished = run_blockptq(
        "quantize", "--model", options.model, "--output", output, "--recipe", recipe_file, "--dtype", "fp32",
        "--eval_chunks", 0, "--threads", options.threads, "--json", result, timeout=7200,
    )  # fmt: skip
    if finished.code != 0:
        sys.exit(finished.stderr)
    return finished.seconds


def compare(options: argparse.Namespace, model: Path, *more: str | Path) -> dict[str, Any]:
    return eval_json(
        options.scratch / "eval.json", "--model", model, "--reference", options.model, "--dtype", "fp32",
        "--seq_len", options.seq_len, "--max_chunks", options.chunks, "--threads", options.threads, *more,
    )  # fmt: skip


def report(name: str, result: dict[str, Any], floor: float, plain: float, seconds: float | None) -> None:
    excess = f"{(result['kl'] - floor) / (plain - floor):.2f}" if plain > floor else ""
    time = "" if seconds is None else f"{seconds:.0f} s"
    print(
        f"| {name} | {result['ppl']:.3f} | {result['kl']:.6f} | {excess} | "
        f"{100 * result['top1_agreement']:.2f} % | {time} |",
        flush=True,
    )


def table(options: argparse.Namespace, quant_type: str) -> None:
    recipe_file = options.scratch / "recipe.json"
    write_recipe(recipe_file, quant_type, {"weight_bits": 16}, {})
    floor = compare(options, options.model, "--train_mode", "block", "--recipe", recipe_file)
    print(f"\n| {quant_type} | perplexity | KL | excess | top-1 | time |\n|---|---|---|---|---|---|")
    report("floating-point weights", floor, 0, 0, None)
    plain = None
    for algorithm, refinement, transforms in ROWS:
        rule = {"algorithm": {"name": algorithm}, "refine": {"name": refinement}}
        write_recipe(recipe_file, quant_type, rule, transforms)
        seconds = quantize(options, recipe_file)
        result = compare(options, options.scratch / "deployed")
        plain = result["kl"] if plain is None else plain
        parts = [*transforms, algorithm, *([refinement] if refinement != "none" else [])]
        report(" + ".join(f"`{part}`" for part in parts), result, floor["kl"], plain, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--types", nargs="+", default=["w4a8c8", "w8a8c8"])
    parser.add_argument("--seq_len", type=int, default=1024)
    parser.add_argument("--chunks", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.scratch.mkdir()
    for quant_type in options.types:
        table(options, quant_type)
    shutil.rmtree(options.scratch)


if __name__ == "__main__":
    main()
