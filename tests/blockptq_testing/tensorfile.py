"""safetensors in NumPy only. BF16 tensors are uint16 arrays of codes, F8_E4M3 tensors uint8 arrays."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

INDEX_NAME = "model.safetensors.index.json"

NUMPY_TYPES: dict[str, np.dtype] = {
    name: np.dtype(code)
    for name, code in {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1",
        "U64": "<u8", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
    }.items()
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: `begin` and `end` are offsets from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one file by name, in the order of the header."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    start = 8 + length
    return {
        name: TensorInfo(
            name, entry["dtype"], tuple(entry["shape"]),
            start + entry["data_offsets"][0], start + entry["data_offsets"][1],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }  # fmt: skip


def read_tensor(path: Path, info: TensorInfo) -> np.ndarray:
    """The elements of one tensor, as a copy."""
    with open(path, "rb") as file:
        file.seek(info.begin)
        data = file.read(info.end - info.begin)
    return np.frombuffer(data, NUMPY_TYPES[info.dtype]).reshape(info.shape).copy()


def read_file(path: Path) -> dict[str, np.ndarray]:
    """All tensors of one file."""
    return {name: read_tensor(path, info) for name, info in read_header(path).items()}


def header_bytes(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """Length and header of a file with (name, dtype, shape) tensors stored back to back."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dtype, shape in tensors:
        size = int(np.prod(shape, dtype=np.int64)) * NUMPY_TYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_file(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    """Writes {name: (dtype, array)}; the arrays must have the NumPy type that stands for the dtype."""
    for name, (dtype, array) in tensors.items():
        if array.dtype != NUMPY_TYPES[dtype]:
            raise TypeError(f"{name}: {array.dtype} cannot be stored as {dtype}")
    with open(path, "wb") as file:
        file.write(header_bytes((name, dtype, array.shape) for name, (dtype, array) in tensors.items()))
        for _, array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


class Checkpoint:
    """Tensors by name of a folder: an index with shards, or a single model.safetensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._headers = {path.name: read_header(path) for path in self._shards(folder)}
        self.shard_of = {name: shard for shard, header in self._headers.items() for name in header}

    @staticmethod
    def _shards(folder: Path) -> list[Path]:
        index = folder / INDEX_NAME
        if not index.exists():
            return [folder / "model.safetensors"]
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return [folder / shard for shard in sorted(set(weight_map.values()))]

    def shards(self) -> Iterator[tuple[str, dict[str, TensorInfo]]]:
        """(file name, tensors) of every shard."""
        yield from self._headers.items()

    def info(self, name: str) -> TensorInfo:
        return self._headers[self.shard_of[name]][name]

    def read(self, name: str) -> np.ndarray:
        return read_tensor(self.folder / self.shard_of[name], self.info(name))


def tensor_files(folder: Path) -> dict[str, bytes]:
    """The safetensors files of a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
