"""Decodes an official FP8 checkpoint (blocks of 128 x 128) into a folder without FP8: the reference.

Every FP8 weight becomes table[code] x scale of its block, in fp32. With --dtype f32 (the default)
nothing is rounded; with --dtype bf16 the products are rounded to BF16, which is what transformers
and servers would load. All other tensors are copied bit by bit.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from blockptq_testing.numbers import decode_fp8_blocks, f32_to_bf16
from blockptq_testing.tensorfile import INDEX_NAME, Checkpoint, write_file

SCALE_SUFFIX = "_scale_inv"


def _decoded_tensor(source: Checkpoint, name: str, block: tuple[int, int], dtype: str) -> tuple[str, np.ndarray]:
    info = source.info(name)
    array = source.read(name)
    if info.dtype != "F8_E4M3":
        return info.dtype, array
    decoded = decode_fp8_blocks(array, source.read(name + SCALE_SUFFIX), block)
    return ("F32", decoded) if dtype == "f32" else ("BF16", f32_to_bf16(decoded))


def _write_config(source: Path, target: Path, dtype: str) -> tuple[int, int]:
    """Copies config.json without quantization_config; returns the block size that it declared."""
    config = json.loads((source / "config.json").read_text())
    quantization = config.pop("quantization_config")
    config["torch_dtype"] = {"f32": "float32", "bf16": "bfloat16"}[dtype]
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    rows, columns = quantization["weight_block_size"]
    return rows, columns


def decode(source: Path, target: Path, dtype: str = "f32") -> None:
    """Writes the decoded folder, shard by shard under the shards' old names."""
    target.mkdir(parents=True)
    block = _write_config(source, target, dtype)
    for path in source.glob("tokenizer*"):
        shutil.copyfile(path, target / path.name)
    checkpoint = Checkpoint(source)
    weight_map: dict[str, str] = {}
    total_size = 0
    for shard, header in checkpoint.shards():
        tensors = {
            name: _decoded_tensor(checkpoint, name, block, dtype) for name in header if not name.endswith(SCALE_SUFFIX)
        }
        if not tensors:
            continue
        write_file(target / shard, tensors)
        weight_map |= dict.fromkeys(tensors, shard)
        total_size += sum(array.nbytes for _, array in tensors.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    (target / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    options = parser.parse_args()
    decode(options.source, options.target, options.dtype)


if __name__ == "__main__":
    main()
