"""`blockptq inspect` on deployed folders and on runs, and `--verify` on any checkpoint."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from blockptq_testing.damage import LFS_POINTER, overwrite_element, replace_file
from blockptq_testing.deployed import FORMATS, deployed
from blockptq_testing.models import SHIPPED
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


def run_folder(command: str, folder: Path, *more: str | int) -> list[dict[str, Any]]:
    """Runs the command in `folder`; the lines of its journal."""
    finished = run_blockptq(
        command, "--model", SHIPPED, *more, "--nsamples", 4, "--seq_len", 128, "--threads", 2,
    )  # fmt: skip
    assert finished.code == 0, finished.stderr
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def test_inspect_tells_what_a_run_was_and_how_far_it_came(tmp_path: Path) -> None:
    folder = tmp_path / "out.run"
    journal = run_folder(
        "quantize", folder, "--output", str(tmp_path / "out"), "--eval_chunks", 1, "--eval_seq_len", 128
    )
    result = inspected(folder, tmp_path / "result.json")
    blocks = [entry for entry in journal if entry["unit"] == "block"]
    units = [entry for entry in journal if entry["unit"] not in {"block", "held_out"}]
    totals = result["totals"]
    assert result["finished"] and result["run"]["command"] == "quantize"
    assert (totals["blocks"], totals["units"]) == (len(blocks), len(units))
    before, after = (sum(unit[key] for unit in units) for key in ("loss_before", "loss_after"))
    assert totals["loss_ratio"] == pytest.approx(after / before)
    assert [row["relative_error"] for row in result["blocks"]] == [row["relative_error"] for row in blocks]
    shown = run_blockptq("inspect", folder).stdout
    assert f"{folder}: run of quantize, finished" in shown
    assert "4 sequences of 128 tokens, 512 tokens" in shown and "recipe          w4a8c8" in shown
    assert f"{len(blocks)} blocks, {len(units)} units" in shown

    (folder / "result.json").unlink()
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    cut = next(i for i, entry in enumerate(journal) if (entry["block"], entry["unit"]) == (3, "block"))
    (folder / "journal.jsonl").write_text("".join(lines[:cut]) + lines[cut][:10])
    partial = inspected(folder, tmp_path / "result.json")
    assert not partial["finished"] and partial["totals"]["blocks"] == 3
    assert len(partial["blocks"]) == 4
    shown = run_blockptq("inspect", folder).stdout
    assert "without a result so far" in shown and "in work" in shown.splitlines()[-1]


def test_inspect_shows_the_rules_of_a_training_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_folder(
        "train", folder, "--output_dir", str(folder), "--train_mode", "moe", "--algorithm", "nearest", "--end", 4
    )
    shown = run_blockptq("inspect", folder).stdout
    assert f"{folder}: run of train" in shown and '"weight_bits":16' in shown
    assert '{"name":"nearest"}' in shown


def test_inspect_of_what_is_neither(tmp_path: Path) -> None:
    refused = run_blockptq("inspect", tmp_path)
    assert refused.code == 2 and f"{tmp_path}: neither a checkpoint" in refused.stderr
    (tmp_path / "run.json").write_text('{"command": "quantize", "texts": 3}')
    refused = run_blockptq("inspect", tmp_path)
    assert refused.code == 2 and "texts" in refused.stderr
    assert run_blockptq("inspect", tmp_path, "--verify").code == 2
