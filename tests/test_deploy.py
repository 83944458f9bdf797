"""`blockptq deploy`: every type and layout against the source in NumPy, learned parameters."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from blockptq_testing.deployed import (
    FORMATS,
    DeployedFolder,
    deploy,
    deployed,
    folder_bytes,
    source_values,
)
from blockptq_testing.models import SHIPPED, require_model
from blockptq_testing.numbers import f32_to_bf16
from blockptq_testing.program import run_blockptq
from blockptq_testing.tensorfile import INDEX_NAME, Checkpoint, write_file

TYPES = ("w8a8c16", "w8a8c8", "w4a8c16", "w4a8c8")
LINEARS = ("q_b_proj", "o_proj", "wq_b", "gate_proj", "up_proj", "down_proj")
EXPERT = "model.layers.3.mlp.experts.5"
BLOCKS = range(7)  # with the MTP layer


def expected_bits(name: str, quant_type: str) -> int:
    """16, or the width that the type asks for."""
    if name.removesuffix(".weight").rsplit(".", 1)[-1] not in LINEARS:
        return 16
    return 4 if ".experts." in name and quant_type.startswith("w4") else 8


def source_names(source: Checkpoint) -> set[str]:
    return {name for _, header in source.shards() for name in header if not name.endswith("_scale_inv")}


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("quant_type", TYPES)
def test_every_weight_is_the_source_within_half_a_step(tmp_path: Path, quant_type: str, layout: str) -> None:
    folder = deployed(tmp_path / "out", "--quant_type", quant_type, "--format", layout)
    source = Checkpoint(SHIPPED)
    quantized = {name for name in source_names(source) if expected_bits(name, quant_type) < 16}
    assert set(folder.quantized_names()) == quantized
    for name in quantized:
        weight, values = folder.weight(name), source_values(source, name)
        assert weight.bits == expected_bits(name, quant_type)
        # The grid, written again: no outlier is cut off, so that half a step bounds every error.
        steps = 2 ** (weight.bits - 1) - 1
        np.testing.assert_array_equal(weight.scales, np.abs(values).max(1) / np.float32(steps))
        np.testing.assert_array_equal(weight.codes, np.rint(values / weight.scales[:, None]).astype(np.int8))
        error = np.abs(weight.values() - values)
        assert np.all(error <= weight.scales[:, None] * 0.50002)  # quotient and product round in fp32
        relative = np.linalg.norm(weight.values().astype(np.float64) - values) / np.linalg.norm(values.astype(np.float64))
        assert folder.description["tensors"][name]["relative_error"] == pytest.approx(relative, rel=1e-4)
        if weight.bias is not None:
            exact = 8 * weight.scales * weight.codes.astype(np.int64).sum(1)
            np.testing.assert_allclose(weight.bias, exact, atol=2e-4 * weight.scales.max() * 8 * 7)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("quant_type", ["bfloat16", "w4a8c8"])
def test_everything_else_is_carried_over(tmp_path: Path, quant_type: str, layout: str) -> None:
    folder = deployed(tmp_path / "out", "--quant_type", quant_type, "--format", layout)
    source = Checkpoint(SHIPPED)
    assert source_names(source) <= set(folder.checkpoint.shard_of)
    for name in source_names(source):
        if quant_type != "bfloat16" and expected_bits(name, quant_type) < 16:
            continue
        info = folder.checkpoint.info(name)
        if source.info(name).dtype == "F8_E4M3":
            assert info.dtype == "BF16"
            np.testing.assert_array_equal(folder.checkpoint.read(name), f32_to_bf16(source_values(source, name)))
        else:
            assert info.dtype == source.info(name).dtype
            np.testing.assert_array_equal(folder.checkpoint.read(name), source.read(name))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (folder.folder / name).read_bytes() == (SHIPPED / name).read_bytes()
    config = json.loads((SHIPPED / "config.json").read_text())
    del config["quantization_config"]
    assert {key: value for key, value in folder.config.items() if key != "quantization_config"} == config
    assert ("quantization_config" in folder.config) == (quant_type != "bfloat16")


def test_a_bf16_source_gives_the_codes_of_its_weights(tmp_path: Path) -> None:
    model = require_model("tiny-v32-bf16")
    folder = deployed(tmp_path / "out", "--quant_type", "w4a8c8", source=model)
    source = Checkpoint(model)
    name = f"{EXPERT}.up_proj.weight"
    values = source_values(source, name)
    weight = folder.weight(name)
    np.testing.assert_array_equal(weight.codes, np.rint(values / weight.scales[:, None]).astype(np.int8))
    again = deployed(tmp_path / "float", "--quant_type", "bfloat16", source=model)
    for tensor in source_names(source):
        np.testing.assert_array_equal(again.checkpoint.read(tensor), source.read(tensor))


def test_files_are_what_the_index_and_blockptq_json_say(tmp_path: Path) -> None:
    folder = deployed(tmp_path / "out", "--quant_type", "w8a8c8", "--max_shard_size", "700KB")
    index = json.loads((folder.folder / INDEX_NAME).read_text())
    shards = sorted(path.name for path in folder.folder.glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == shards == sorted(folder.description["shards"])
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    total = 0
    for shard, header in folder.checkpoint.shards():
        path = folder.folder / shard
        recorded = folder.description["shards"][shard]
        assert recorded["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert recorded["bytes"] == path.stat().st_size
        sizes = [tensor.end - tensor.begin for tensor in header.values()]
        assert sum(sizes) <= 700_000 or len(sizes) == 1
        blocks = {name.split(".")[2] if name.startswith("model.layers.") else name for name in header}
        assert len(blocks) == 1 or not any(block.isdigit() for block in blocks)
        total += sum(sizes)
    assert index["metadata"]["total_size"] == total
    assert folder.description["cache"] == "c8"
    assert not list(folder.folder.glob(".*")), "nothing of the work is left"


def hadamard(size: int) -> np.ndarray:
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(np.float32(size))


def test_ascend_stores_the_rotation_of_the_indexer_under_c8(tmp_path: Path) -> None:
    name = "model.layers.{}.self_attn.indexer.hadamard_matrix"
    folder = deployed(tmp_path / "c8", "--quant_type", "w8a8c8", "--format", "ascend")
    for block in BLOCKS:
        assert folder.checkpoint.info(name.format(block)).dtype == "BF16"
        np.testing.assert_array_equal(folder.checkpoint.read(name.format(block)), f32_to_bf16(hadamard(64)))
    scheme = folder.config["quantization_config"]["kv_cache_scheme"]
    assert scheme == {
        "num_bits": 8, "type": "int", "strategy": "group", "group_size": 128, "dynamic": True, "symmetric": True,
    }  # fmt: skip
    folder = deployed(tmp_path / "c16", "--quant_type", "w8a8c16", "--format", "ascend")
    assert name.format(0) not in folder.checkpoint.shard_of
    assert folder.config["quantization_config"]["kv_cache_scheme"] is None


# --- learned parameters ---


def fingerprint(model: Path, json_file: Path) -> str:
    assert run_blockptq("inspect", model, "--json", json_file).code == 0
    result: str = json.loads(json_file.read_text())["fingerprint"]
    return result


def write_parameters(folder: Path, block: int, tensors: dict[str, np.ndarray]) -> Path:
    """Parameters as a training run leaves them."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"model": fingerprint(SHIPPED, folder / "inspect.json")}))
    write_file(
        folder / f"quant_parameters_{block}.safetensors",
        {name: ("I8" if array.dtype == np.int8 else "F32", array) for name, array in tensors.items()},
    )
    return folder


def test_learned_scales_and_codes_are_written_as_they_are(tmp_path: Path) -> None:
    source = Checkpoint(SHIPPED)
    up, down = (source_values(source, f"{EXPERT}.{name}.weight") for name in ("up_proj", "down_proj"))
    scales = (np.abs(up).max(1) / 7 * 0.9).astype(np.float32)
    down_scales = (np.abs(down).max(1) / 7).astype(np.float32)
    off = np.random.default_rng(0).integers(-2, 3, down.shape)
    codes = np.clip(np.rint(down / down_scales[:, None]) + off, -8, 7).astype(np.int8)
    parameters = write_parameters(tmp_path / "learned", 3, {
        f"{EXPERT}.up_proj.weight_scale": scales,
        f"{EXPERT}.down_proj.weight_codes": codes,
        f"{EXPERT}.down_proj.weight_scale": down_scales,
    })  # fmt: skip
    for layout in FORMATS:
        output = tmp_path / layout
        finished = deploy(output, "--quant_type", "w4a8c8", "--clip", "--moe_param_path", parameters, "--format", layout)
        assert finished.code == 0, finished.stderr
        # Codes that are off by some steps: verification names the weight.
        assert f"{EXPERT}.down_proj.weight" in finished.stderr
        folder = DeployedFolder(output)
        weight = folder.weight(f"{EXPERT}.up_proj.weight")
        np.testing.assert_array_equal(weight.scales, scales)
        np.testing.assert_array_equal(weight.codes, np.clip(np.rint(up / scales[:, None]), -8, 7).astype(np.int8))
        weight = folder.weight(f"{EXPERT}.down_proj.weight")
        np.testing.assert_array_equal(weight.codes, codes)
        np.testing.assert_array_equal(weight.scales, down_scales)


def test_learned_activation_clips(tmp_path: Path) -> None:
    latent = "model.layers.3.self_attn.kv_b_proj"
    logits = {f"{EXPERT}.down_proj.input_clip": 2.0, f"{latent}.input_clip": 3.0, f"{EXPERT}.gate_proj.input_clip": 1.0}
    tensors = {name: np.array([logit], np.float32) for name, logit in logits.items()}
    parameters = write_parameters(tmp_path / "learned", 3, tensors)
    learned = ("--quant_type", "w4a8c8", "--moe_param_dir", parameters, "--mla_param_dir", parameters)
    refused = deploy(tmp_path / "refused", *learned)
    assert refused.code == 2
    assert "--format ascend" in refused.stderr and "--lac" in refused.stderr
    assert not (tmp_path / "refused").exists()
    finished = deploy(tmp_path / "out", *learned, "--format", "ascend")
    assert finished.code == 0
    assert f"{EXPERT}.gate_proj.weight" in finished.stderr, "a clip without a place is named"
    read = Checkpoint(tmp_path / "out").read
    np.testing.assert_allclose(read(f"{EXPERT}.down_proj.alpha"), [1 / (1 + np.exp(-2.0))], rtol=1e-6)
    np.testing.assert_allclose(read("model.layers.3.self_attn.ckv_a_alpha"), [1 / (1 + np.exp(-3.0))], rtol=1e-6)
    np.testing.assert_array_equal(read("model.layers.3.mlp.shared_experts.down_proj.alpha"), [1.0])
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["config_groups"]["group_1"]["activation_use_clip"] is True
    # Written again from the folder itself, clips and what was left out of them stay what they are.
    again = ("--format", "ascend", "--max_shard_size", "1MB")
    finished = deploy(tmp_path / "expected", *learned, *again)
    assert finished.code == 0 and deploy(tmp_path / "again", *again, source=tmp_path / "out").code == 0
    assert folder_bytes(tmp_path / "again") == folder_bytes(tmp_path / "expected")
    refused = deploy(tmp_path / "refused", source=tmp_path / "out")
    assert refused.code == 2 and "cannot carry learned activation clips" in refused.stderr


def test_learned_parameters_are_needed_where_they_are_asked_for(tmp_path: Path) -> None:
    refused = deploy(tmp_path / "out", "--quant_type", "w8a8c8", "--clip")
    assert refused.code == 2 and "--moe_param_path" in refused.stderr
    assert not (tmp_path / "out").exists()


# --- the rest ---


def test_threads_do_not_change_a_byte(tmp_path: Path) -> None:
    for threads in (1, 3):
        deployed(tmp_path / str(threads), "--quant_type", "w4a8c8", "--threads", threads)
    assert folder_bytes(tmp_path / "1") == folder_bytes(tmp_path / "3")


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    plan = run_blockptq(
        "plan", "deploy", "--quant_type", "w4a8c8", "--input_weight_path", SHIPPED,
        "--output_weight_path", tmp_path / "out", "--json", tmp_path / "plan.json",
    )  # fmt: skip
    assert plan.code == 0, plan.stderr
    assert not (tmp_path / "out").exists()
    expected = json.loads((tmp_path / "plan.json").read_text())["disk_bytes"]
    deployed(tmp_path / "out", "--quant_type", "w4a8c8")
    assert sum(os.path.getsize(path) for path in (tmp_path / "out").glob("*.safetensors")) == expected
