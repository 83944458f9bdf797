"""Deployed folders in NumPy only: the integers of both layouts, and the weights that they stand for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .models import SHIPPED
from .numbers import bf16_to_f32, decode_fp8_blocks
from .program import Argument, Finished, run_blockptq
from .tensorfile import INDEX_NAME, Checkpoint

FORMATS = ("compressed-tensors", "ascend")


@dataclass(frozen=True)
class QuantizedWeight:
    """value[o, i] = scales[o] * codes[o, i]; `bias` is the row sum that the packed layout adds."""

    codes: np.ndarray
    scales: np.ndarray
    bits: int
    bias: np.ndarray | None = None

    def values(self) -> np.ndarray:
        values: np.ndarray = self.codes * self.scales[:, None]
        return values


def unpack_rows(packed: np.ndarray) -> np.ndarray:
    """Codes [out, in] of bytes [out / 2, in]: even rows in the low nibbles, two's complement."""
    unsigned = packed.view(np.uint8)
    codes = np.empty((2 * packed.shape[0], packed.shape[1]), np.int8)
    codes[0::2] = unsigned & 15
    codes[1::2] = unsigned >> 4
    return (codes ^ 8) - 8


class DeployedFolder:
    """What blockptq.json says and what the shards hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = Checkpoint(folder)
        self.description = json.loads((folder / "blockptq.json").read_text())
        self.config = json.loads((folder / "config.json").read_text())

    def quantized_names(self) -> list[str]:
        tensors = self.description["tensors"]
        return [name for name, entry in tensors.items() if entry["scheme"].startswith("w")]

    def weight(self, name: str) -> QuantizedWeight:
        """A quantized weight by the name of its source."""
        read = self.checkpoint.read
        module = name.removesuffix(".weight")
        bits = int(self.description["tensors"][name]["scheme"].split("a")[0][1:])
        scales = read(f"{module}.weight_scale")
        if self.checkpoint.info(f"{module}.weight_scale").dtype == "U64":
            assert np.all(scales >> 32 == 0)
            narrow = scales.astype(np.uint32).view(np.float32)
            return QuantizedWeight(unpack_rows(read(name)), narrow[:, 0], bits, read(f"{module}.bias"))
        return QuantizedWeight(read(name), scales[:, 0], bits)


def source_values(source: Checkpoint, name: str) -> np.ndarray:
    """A weight of a BF16, F32 or FP8-block checkpoint in fp32."""
    dtype = source.info(name).dtype
    if dtype == "F8_E4M3":
        scales = source.read(name.replace(".weight", ".weight_scale_inv"))
        return decode_fp8_blocks(source.read(name), scales, (128, 128))
    return bf16_to_f32(source.read(name)) if dtype == "BF16" else source.read(name)


def deploy(output: Path, *args: Argument, source: Path = SHIPPED, **options: Any) -> Finished:
    """Runs `blockptq deploy`; the options are those of run_blockptq."""
    return run_blockptq(
        "deploy", "--input_weight_path", source, "--output_weight_path", output, *args, **options,
    )  # fmt: skip


def deployed(output: Path, *args: Argument, source: Path = SHIPPED) -> DeployedFolder:
    """The same, with success and silence required."""
    finished = deploy(output, *args, source=source)
    assert finished.code == 0, finished.stderr
    assert finished.stderr == ""
    return DeployedFolder(output)


def folder_bytes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def looks_complete(folder: Path) -> bool:
    """Whether the folder passes for a checkpoint."""
    return (folder / INDEX_NAME).exists() or (folder / "model.safetensors").exists()
