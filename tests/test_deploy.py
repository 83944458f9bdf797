"""`blockptq deploy`: every type and layout against the source in NumPy, interruptions, refusals."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blockptq_testing.damage import overwrite_element
from blockptq_testing.deployed import DeployedFolder, source_values
from blockptq_testing.models import SHIPPED, require_model
from blockptq_testing.numbers import f32_to_bf16
from blockptq_testing.program import ENVIRONMENT, Argument, Finished, binary, run_blockptq
from blockptq_testing.tensorfile import INDEX_NAME, Checkpoint, write_file

FORMATS = ("compressed-tensors", "ascend")
TYPES = ("w8a8c16", "w8a8c8", "w4a8c16", "w4a8c8")
LINEARS = ("q_b_proj", "o_proj", "wq_b", "gate_proj", "up_proj", "down_proj")
EXPERT = "model.layers.3.mlp.experts.5"
BLOCKS = range(7)  # with the MTP layer


def deploy(output: Path, *args: Argument, source: Path = SHIPPED, **options: Any) -> Finished:
    return run_blockptq(
        "deploy", "--input_weight_path", source, "--output_weight_path", output, *args, **options,
    )  # fmt: skip


def deployed(output: Path, *args: Argument, source: Path = SHIPPED) -> DeployedFolder:
    finished = deploy(output, *args, source=source)
    assert finished.code == 0, finished.stderr
    assert finished.stderr == ""
    return DeployedFolder(output)


def expected_bits(name: str, quant_type: str) -> int:
    """16, or the width that the type asks for."""
    if name.removesuffix(".weight").rsplit(".", 1)[-1] not in LINEARS:
        return 16
    return 4 if ".experts." in name and quant_type.startswith("w4") else 8


def source_names(source: Checkpoint) -> set[str]:
    return {name for _, header in source.shards() for name in header if not name.endswith("_scale_inv")}


def folder_bytes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


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


# --- interruptions ---


def looks_complete(folder: Path) -> bool:
    return (folder / INDEX_NAME).exists() or (folder / "model.safetensors").exists()


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    args = ("--quant_type", "w4a8c8", "--format", "ascend", "--max_shard_size", "300KB")
    start = time.monotonic()
    deployed(tmp_path / "undisturbed", *args)
    seconds = time.monotonic() - start
    expected = folder_bytes(tmp_path / "undisturbed")
    moments = random.Random(0)
    output = tmp_path / "killed"
    command = [binary(), "deploy", "--input_weight_path", SHIPPED, "--output_weight_path", output, *args]
    killed = 0
    for _ in range(20):
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT,
        )  # fmt: skip
        time.sleep(moments.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
            complete = looks_complete(output)
            assert not complete or folder_bytes(output).items() >= expected.items()
        if moments.random() < 0.3:
            shutil.rmtree(output, ignore_errors=True)  # begin anew, so that early moments come too
    assert killed > 0
    finished = deploy(output, *args)
    assert finished.code == 0, finished.stderr
    assert folder_bytes(output) == expected


def test_finished_shards_are_not_written_again(tmp_path: Path) -> None:
    args = ("--quant_type", "w8a8c8")
    deployed(tmp_path / "out", *args)
    modified = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    finished = deploy(tmp_path / "out", *args)
    assert finished.code == 0 and "complete already" in finished.stdout
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == modified


def test_threads_do_not_change_a_byte(tmp_path: Path) -> None:
    for threads in (1, 3):
        deployed(tmp_path / str(threads), "--quant_type", "w4a8c8", "--threads", threads)
    assert folder_bytes(tmp_path / "1") == folder_bytes(tmp_path / "3")


# --- refusals ---


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    for more in ((), ("--restart",)):
        refused = deploy(foreign, "--quant_type", "w8a8c8", *more)
        assert refused.code == 2 and "notes.txt" in refused.stderr
        assert [path.name for path in foreign.iterdir()] == ["notes.txt"]
    source = tmp_path / "source"
    shutil.copytree(SHIPPED, source)
    before = folder_bytes_of_files(source)
    refused = deploy(source, "--quant_type", "w8a8c8", "--restart", source=source)
    assert refused.code == 2 and "is the source" in refused.stderr
    assert folder_bytes_of_files(source) == before


def folder_bytes_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_another_run_is_refused_or_replaced(tmp_path: Path) -> None:
    deployed(tmp_path / "out", "--quant_type", "w8a8c8")
    refused = deploy(tmp_path / "out", "--quant_type", "w4a8c8")
    assert refused.code == 2 and "recipe" in refused.stderr and "--restart" in refused.stderr
    deployed(tmp_path / "fresh", "--quant_type", "w4a8c8")
    deployed(tmp_path / "out", "--quant_type", "w4a8c8", "--restart")
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "fresh")


def test_a_corrupted_source_leaves_nothing_complete(tmp_path: Path, model: Path) -> None:
    overwrite_element(model, f"{EXPERT}.up_proj.weight", 7, b"\x7f")
    refused = deploy(tmp_path / "out", "--quant_type", "w8a8c8", source=model)
    assert refused.code == 2
    assert f"{EXPERT}.up_proj.weight" in refused.stderr and "NaN" in refused.stderr
    assert not looks_complete(tmp_path / "out")


def test_learned_parameters_are_needed_where_they_are_asked_for(tmp_path: Path) -> None:
    refused = deploy(tmp_path / "out", "--quant_type", "w8a8c8", "--clip")
    assert refused.code == 2 and "--moe_param_path" in refused.stderr
    assert not (tmp_path / "out").exists()


def mounted(command: str) -> bool:
    """Whether a mount namespace of our own allows `command`."""
    return subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, check=False).returncode == 0


def deploy_under_mount(mount: str, output: Path) -> subprocess.CompletedProcess[str]:
    script = f'{mount} && exec "$0" deploy --quant_type w8a8c8 --input_weight_path "$1" --output_weight_path "$2"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(binary()), str(SHIPPED), str(output)],
        capture_output=True, text=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounted(f"mount -t tmpfs -o size=8m none {disk}"):
        pytest.skip("mounting a small disk needs root")
    refused = deploy_under_mount(f"mount -t tmpfs -o size=8m none {disk}", disk / "out")
    assert refused.returncode == 2
    assert "no space" in refused.stderr


def test_a_disk_that_fills_up_while_writing_is_named(tmp_path: Path) -> None:
    """The space was there at the start; a limit on the size of files stands for the writer next door."""

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    refused = deploy(tmp_path / "out", "--quant_type", "w8a8c8", before_start=limit)
    assert refused.code == 2
    assert "cannot write" in refused.stderr
    assert not looks_complete(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tmp-*")), "what was begun is removed"
    deployed(tmp_path / "out", "--quant_type", "w8a8c8")


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o ro none {disk}"
    if not mounted(mount):
        pytest.skip("mounting a read-only disk needs root")
    refused = deploy_under_mount(mount, disk / "out")
    assert refused.returncode == 2
    assert "cannot create" in refused.stderr


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


# --- inspect ---


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
    last.write_bytes(content[: len(content) // 2])
    refused = run_blockptq("inspect", model, "--verify")
    assert refused.code == 2 and last.name in refused.stderr and "partly downloaded" in refused.stderr
