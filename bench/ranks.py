"""Time of 2 ranks x 1 core against 1 rank x 1 core, at the sizes of DeepSeek-V3.2's blocks.

    python tests/make_checkpoint.py DIR --hidden 7168 --moe_intermediate 2048 --experts 16 --blocks 1 ...
    PYTHONPATH=tests python bench/ranks.py DIR eval --seq_len 512 --max_chunks 4 --dtype fp32
    PYTHONPATH=tests python bench/ranks.py DIR quantize --nsamples 4 --seq_len 256 --eval_chunks 0

Prints both times, their ratio, the bytes read, and whether the results are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from blockptq_testing.network import Host
from blockptq_testing.ranks import Job
from blockptq_testing.tensorfile import tensor_files

Result = dict[str, Any]


def run(size: int, command: list[str], folder: Path) -> Result:
    """The JSON of a job of `size` ranks."""
    json_file = folder / f"{size}.json"
    # A core each: reading ahead has a thread of its own, which would take the other one when it is idle.
    hosts = [Host("127.0.0.1", ("taskset", "-c", str(core))) for core in range(size)]
    job = Job([[*command, "--json", str(json_file)]] * size, lost_after=60, hosts=hosts)
    if job.wait(timeout=1e6) != [0] * size:
        sys.exit("\n".join(job.errors()))
    result: Result = json.loads(json_file.read_text())
    print(f"{size} x 1 core: {result['seconds']:.1f} s, {result['bytes_read'] / 1e6:.0f} MB read", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("command", choices=("eval", "quantize"))
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = []
        for size in (1, 2):
            command = [options.command, "--model", options.model, *rest]
            if options.command == "quantize":
                command += ["--output", str(folder / f"out{size}")]
            results.append(run(size, command, folder))
        one, two = results
        print(f"ratio {one['seconds'] / two['seconds']:.2f}, bytes {two['bytes_read'] / one['bytes_read']:.3f}")
        if options.command == "eval":
            print(f"perplexity {one['ppl']!r} and {two['ppl']!r}: {abs(two['ppl'] / one['ppl'] - 1):.1e} apart")
        else:
            print("same bytes" if tensor_files(folder / "out1") == tensor_files(folder / "out2") else "OTHER BYTES")
            for unit in one["units"]:
                print(f"  {unit['unit']}: {unit['seconds']:.1f} s, {unit['tokens']} tokens")


if __name__ == "__main__":
    main()
