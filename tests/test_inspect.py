"""`blockptq inspect` on deployed folders, and `--verify` on any."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from blockptq_testing.damage import LFS_POINTER, overwrite_element, replace_file
from blockptq_testing.deployed import FORMATS, deployed
from blockptq_testing.program import run_blockptq

EXPERT = "model.layers.3.mlp.experts.5"




def inspected(folder: Path, json_file: Path, *more: str) -> dict[str, Any]:
    finished = run_blockptq("inspect", folder, *more, "--json", json_file)
    assert finished.code == 0, finished.stderr
    result: dict[str, Any] = json.loads(json_file.read_text())
    return result


@pytest.mark.parametrize("layout", FORMATS)
def test_inspect_tells_precisions_and_the_worst_tensors(tmp_path: Path, layout: str) -> None:
    folder = deployed(tmp_path / "out", "--quant_type", "w4a8c8", "--format", layout)
    result = inspected(folder.folder, tmp_path / "result.json", "--verify")
    assert result["verified"]["checksums"] == len(folder.description["shards"])
    up = result["precisions"]["expert.up_proj int4"]
    assert up["parameters"] == 5 * 16 * 128 * 256
    assert result["precisions"]["attention.o_proj int8"]["tensors"] == 7
    errors = {name: entry["relative_error"] for name, entry in folder.description["tensors"].items() if "relative_error" in entry}
    assert result["worst_tensors"][0]["relative_error"] == max(errors.values())
    assert result["compression_ratio"] > 1.2


def test_inspect_verify_names_what_is_damaged(tmp_path: Path, model: Path) -> None:
    folder = deployed(tmp_path / "out", "--quant_type", "w8a8c8")
    damaged = overwrite_element(folder.folder, f"{EXPERT}.up_proj.weight", 3, b"\x01")
    refused = run_blockptq("inspect", folder.folder, "--verify")
    assert refused.code == 2 and damaged.name in refused.stderr and "SHA-256" in refused.stderr
    assert run_blockptq("inspect", model, "--verify").code == 0
    overwrite_element(model, f"{EXPERT}.up_proj.weight", 7, b"\x7f")
    refused = run_blockptq("inspect", model, "--verify")
    assert refused.code == 2 and f"{EXPERT}.up_proj.weight" in refused.stderr


def test_a_partly_downloaded_source_is_named_as_such(tmp_path: Path, model: Path) -> None:
    last = model / "model-00004-of-00004.safetensors"
    content = last.read_bytes()
    last.unlink()
    refused = run_blockptq("inspect", model, "--verify")
    assert refused.code == 2 and last.name in refused.stderr and "partly downloaded" in refused.stderr
    for kept in (len(content) // 2, 1000):
        last.write_bytes(content[:kept])
        refused = run_blockptq("inspect", model, "--verify")
        assert refused.code == 2 and last.name in refused.stderr and "partly downloaded" in refused.stderr
    last.write_bytes(content)
    replace_file(last, LFS_POINTER)
    refused = run_blockptq("inspect", model, "--verify")
    assert refused.code == 2 and last.name in refused.stderr and "partly downloaded" in refused.stderr


def test_inspect_verify_names_a_scale_that_is_none(tmp_path: Path) -> None:
    """Folders of others have no checksums: every scale is read."""
    folder = deployed(tmp_path / "out", "--quant_type", "w8a8c8")
    (folder.folder / "blockptq.json").unlink()
    assert run_blockptq("inspect", folder.folder, "--verify").code == 0
    for scale in (0.0, float("inf"), float("nan")):
        overwrite_element(folder.folder, f"{EXPERT}.up_proj.weight_scale", 3, struct.pack("<f", scale))
        refused = run_blockptq("inspect", folder.folder, "--verify")
        assert refused.code == 2 and f"{EXPERT}.up_proj.weight_scale" in refused.stderr
