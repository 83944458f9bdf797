"""Ways to damage a copy of a checkpoint, as broken downloads and hostile files do."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .models import own_copy
from .tensorfile import INDEX_NAME, Checkpoint

FIRST_SHARD = "model-00001-of-00004.safetensors"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5217960\n"

JsonEdit = Callable[[dict[str, Any]], object]


def edit_json(path: Path, edit: JsonEdit) -> None:
    """Parses a JSON file, lets `edit` change the object in place, and writes it back."""
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def edit_index(model: Path, edit: JsonEdit) -> None:
    """Changes the weight_map of the index."""
    edit_json(model / INDEX_NAME, lambda index: edit(index["weight_map"]))


def edit_header(shard: Path, edit: JsonEdit) -> None:
    """Changes the header of a shard; the tensor data stay as they are."""
    content = shard.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    shard.unlink()
    shard.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def replace_file(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def flip_bit(shard: Path, offset: int) -> None:
    content = bytearray(own_copy(shard).read_bytes())
    content[offset] ^= 1
    shard.write_bytes(content)


def overwrite_element(model: Path, tensor: str, element: int, value: bytes) -> Path:
    """Writes the bytes of one element of a tensor; returns the shard."""
    checkpoint = Checkpoint(model)
    shard = own_copy(model / checkpoint.shard_of[tensor])
    with open(shard, "r+b") as file:
        file.seek(checkpoint.info(tensor).begin + element * len(value))
        file.write(value)
    return shard
