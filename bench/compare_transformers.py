"""Speed of perplexity evaluation against HF transformers on the same weights, text and threads.

    .venv-interop/bin/python bench/compare_transformers.py --model BF16_FOLDER --text WIKITEXT_FILE

Two figures, each as a ratio of tokens/s (more is better, the bar is 2):
  computing   transformers with its weights already loaded and text already tokenised, against the
              whole evaluation of blockptq, which reads its weights while it computes
  process     the whole process of each, from start to exit
Runs alternate, so that a change of the machine's load meets both; the best of each counts.
transformers runs with sdpa and the fastest of the given ways to compute experts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from blockptq_testing.hf_model import load_model, perplexity, token_nlls  # noqa: E402
from blockptq_testing.text import encode_chunks, wikitext_document  # noqa: E402

BAR = 2.0


@dataclass(frozen=True)
class Measured:
    """Best time in seconds, and the perplexity that came out."""

    seconds: float
    ppl: float


class TransformersRun:
    """The model in transformers, loaded once for every way to compute experts."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        document = wikitext_document(options.text)
        self.chunks = encode_chunks(options.model, document, options.seq_len, options.chunks)
        self._models = [load_model(options.model, options.dtype, experts) for experts in options.experts]

    def measure(self) -> Measured:
        """One evaluation per way to compute experts; the fastest counts."""
        results = []
        for model in self._models:
            start = time.perf_counter()
            nlls = [token_nlls(model, ids).double().mean().item() for ids in self.chunks]
            results.append(Measured(time.perf_counter() - start, perplexity(nlls)))
        return min(results, key=lambda result: result.seconds)


def blockptq_command(options: argparse.Namespace, json_file: Path) -> list[str]:
    return [
        str(options.blockptq), "eval", "--model", str(options.model), "--data", str(options.text),
        "--data_format", "wikitext", "--seq_len", str(options.seq_len), "--max_chunks", str(options.chunks),
        "--dtype", options.dtype, "--threads", str(options.threads), "--json", str(json_file),
    ]  # fmt: skip


def transformers_command(options: argparse.Namespace) -> list[str]:
    return [
        sys.executable, __file__, "--only_transformers", "--model", str(options.model), "--text", str(options.text),
        "--seq_len", str(options.seq_len), "--chunks", str(options.chunks), "--dtype", options.dtype,
        "--threads", str(options.threads), "--experts", options.experts[0],
    ]  # fmt: skip


def time_process(command: list[str], threads: int) -> float:
    """Wall time of a process from start to exit."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def run_blockptq(options: argparse.Namespace) -> tuple[Measured, float]:
    """One evaluation: what the program reports, and the wall time of its process."""
    with tempfile.TemporaryDirectory() as scratch:
        json_file = Path(scratch, "result.json")
        wall = time_process(blockptq_command(options, json_file), options.threads)
        result = json.loads(json_file.read_text())
    return Measured(result["seconds"], result["ppl"]), wall


def print_row(name: str, theirs: float, ours: float, tokens: int) -> None:
    print(f"{name:<10} {tokens / theirs:>14.0f} {tokens / ours:>14.0f} {theirs / ours:>8.2f}")


def compare(options: argparse.Namespace) -> None:
    reference = TransformersRun(options)
    tokens = sum(map(len, reference.chunks))
    theirs: list[Measured] = []
    ours: list[Measured] = []
    our_walls: list[float] = []
    their_walls: list[float] = []
    for _ in range(options.repeats):
        theirs.append(reference.measure())
        measured, wall = run_blockptq(options)
        ours.append(measured)
        our_walls.append(wall)
        their_walls.append(time_process(transformers_command(options), options.threads))
    print(
        f"{len(reference.chunks)} x {options.seq_len} tokens, {options.dtype}, {options.threads} threads, "
        f"best of {options.repeats}; bar {BAR:g}"
    )
    print(f"{'':<10} {'transformers':>14} {'blockptq':>14} {'ratio':>8}   tokens/s")
    print_row("computing", min(m.seconds for m in theirs), min(m.seconds for m in ours), tokens)
    print_row("process", min(their_walls), min(our_walls), tokens)
    print(f"perplexity {theirs[0].ppl:>14.4f} {ours[0].ppl:>14.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder that both can read: without FP8")
    parser.add_argument("--text", type=Path, required=True, help="WikiText file, not packed")
    parser.add_argument("--blockptq", type=Path, default=REPOSITORY / "build" / "blockptq")
    parser.add_argument("--seq_len", type=int, default=1024)
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--experts", nargs="+", default=["grouped_mm", "eager"], help="of transformers; the best counts"
    )
    parser.add_argument("--only_transformers", action="store_true", help="run it once, print perplexity")
    options = parser.parse_args()
    if options.only_transformers:
        print(TransformersRun(options).measure().ppl)
    else:
        compare(options)


if __name__ == "__main__":
    main()
