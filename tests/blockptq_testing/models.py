"""The models that tests use: the one that ships with the project, and larger sets that may be absent."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .program import REPOSITORY

SHIPPED = REPOSITORY / "models" / "tiny-v32-fp8"
SHIPPED_REFERENCE = SHIPPED / "reference"
SHIPPED_BLOCKS = 6
LLM_COMPRESSOR = REPOSITORY / "tests" / "fixtures" / "llmcompressor-w4a8"


def require_model(name: str) -> Path:
    """A model of the test set, models/NAME under BLOCKPTQ_TEST_MODELS; skips by name without it."""
    root = Path(os.environ.get("BLOCKPTQ_TEST_MODELS", REPOSITORY.parent / "shared"))
    folder = root / "models" / name
    if not (folder / "config.json").exists():
        pytest.skip(f"model {name} is not there (BLOCKPTQ_TEST_MODELS)")
    return folder


def clone_model(source: Path, target: Path) -> Path:
    """A copy of a checkpoint to be damaged: small files are copies, shards are hard links if possible."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix == ".safetensors":
            _link_or_copy(path, target / path.name)
        elif path.is_file():
            shutil.copyfile(path, target / path.name)
    return target


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def own_copy(path: Path) -> Path:
    """Makes a hard-linked file of a clone a file of its own, so that it may be changed."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    return path
