"""Makes checkpoints with random weights in the official layouts, of any size.

    python tests/make_checkpoint.py DIR --preset deepseek --blocks 2 --dense_blocks 0 --experts 64

Names, dtypes and shapes are those of DeepSeek-V3.2, DeepSeek-V3, Qwen3-MoE, Qwen3 or Llama
(--model_type). The weights are slices of one pool of normal numbers, scaled so that activations stay near 1; the slice
depends on the name and the seed alone. Tensors are written in pieces: memory stays constant, and
the disk is the limit. The tokenizer is the one of the small model that ships with the project.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from blockptq_testing.layouts import FP8_SIGMAS, LAYOUTS, PRESETS, Dims, Tensor
from blockptq_testing.models import SHIPPED
from blockptq_testing.numbers import FP8_MAX, f32_to_bf16, f32_to_fp8
from blockptq_testing.tensorfile import INDEX_NAME, NUMPY_TYPES, header_bytes

POOL_SIZE = 4_194_301  # a prime: rows of no matrix repeat


class Pool:
    """Random numbers that every tensor takes a slice of, wrapped around at the end."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._normal = np.random.default_rng(seed).standard_normal(POOL_SIZE, dtype=np.float32)
        self._encoded: dict[tuple[str, float, float], memoryview] = {}

    def write(self, tensor: Tensor, file: BinaryIO) -> None:
        data = self._codes(tensor)
        offset = zlib.crc32(f"{self._seed} {tensor.name}".encode()) % POOL_SIZE
        position = offset * NUMPY_TYPES[tensor.dtype].itemsize
        left = tensor.nbytes
        while left:
            piece = data[position : position + left]
            file.write(piece)
            left -= len(piece)
            position = 0

    def _codes(self, tensor: Tensor) -> memoryview:
        """The whole pool as bytes of the tensor's dtype and distribution."""
        # FP8 codes do not depend on the distribution of the weight: the scale carries it.
        key = ("F8_E4M3", 0.0, 0.0) if tensor.dtype == "F8_E4M3" else (tensor.dtype, tensor.mean, tensor.std)
        if key not in self._encoded:
            self._encoded[key] = memoryview(self._encode(tensor)).cast("B")
        return self._encoded[key]

    def _encode(self, tensor: Tensor) -> np.ndarray:
        if tensor.dtype == "F8_E4M3":
            return f32_to_fp8(self._normal * np.float32(FP8_MAX / FP8_SIGMAS))
        if tensor.is_scale:
            return (tensor.mean * np.exp2(0.25 * self._normal)).astype(np.float32)
        values = tensor.mean + tensor.std * self._normal
        return f32_to_bf16(values) if tensor.dtype == "BF16" else values.astype(np.float32)


def split_into_shards(tensors: list[Tensor], shard_bytes: int, split_scales: bool) -> list[list[Tensor]]:
    """Shards of at most `shard_bytes` (or one tensor); `split_scales` puts FP8 scales in shards of their own."""
    groups = [tensors]
    if split_scales:
        groups = [[t for t in tensors if t.is_scale == wanted] for wanted in (False, True)]
    shards: list[list[Tensor]] = []
    for group in groups:
        size = shard_bytes
        for tensor in group:
            if size + tensor.nbytes > shard_bytes:
                shards.append([])
                size = 0
            shards[-1].append(tensor)
            size += tensor.nbytes
    return shards


def write_checkpoint(
    folder: Path,
    dims: Dims,
    fp8: bool = False,
    model_type: str = "deepseek_v32",
    seed: int = 0,
    shard_bytes: int = 5_000_000_000,
    split_scales: bool = False,
) -> int:
    """Writes a checkpoint into a new folder and returns the bytes of its tensors."""
    layout = LAYOUTS[model_type](model_type, dims, fp8)
    tensors = list(layout.tensors())
    shards = split_into_shards(tensors, shard_bytes, split_scales)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(layout.config(), indent=2) + "\n")
    for path in SHIPPED.glob("tokenizer*"):
        shutil.copyfile(path, folder / path.name)
    pool = Pool(seed)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        # As the safetensors library does: wide elements first, so that every tensor is aligned.
        shard = sorted(shard, key=lambda t: (-NUMPY_TYPES[t.dtype].itemsize, t.name))
        with open(folder / name, "wb") as file:
            file.write(header_bytes((t.name, t.dtype, t.shape) for t in shard))
            for tensor in shard:
                pool.write(tensor, file)
        weight_map |= {t.name: name for t in shard}
    total_size = sum(t.nbytes for t in tensors)
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")
    return total_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="sizes that the options below change")
    parser.add_argument("--model_type", choices=LAYOUTS, default="deepseek_v32")
    parser.add_argument("--dtype", choices=("bf16", "fp8"), default="bf16")
    parser.add_argument("--shard_bytes", type=int, default=5_000_000_000)
    parser.add_argument("--split_scales", action="store_true", help="FP8 scales in shards of their own")
    parser.add_argument("--seed", type=int, default=0)
    for name, default in asdict(Dims()).items():
        parser.add_argument(f"--{name}", type=int, help=f"tiny: {default}")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in asdict(Dims()) if getattr(options, name) is not None}
    total_size = write_checkpoint(
        options.folder, replace(PRESETS[options.preset], **given), fp8=options.dtype == "fp8",
        model_type=options.model_type, seed=options.seed, shard_bytes=options.shard_bytes,
        split_scales=options.split_scales,
    )  # fmt: skip
    print(f"{options.folder}: {total_size:,} bytes of tensors")


if __name__ == "__main__":
    main()
