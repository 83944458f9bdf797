"""Bad checkpoints on the command line: damaged shards, index, FP8 pairs and config.json."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockptq_testing.damage import (
    FIRST_SHARD,
    LFS_POINTER,
    edit_header,
    edit_index,
    edit_json,
    overwrite_element,
    replace_file,
)
from blockptq_testing.models import own_copy
from blockptq_testing.refusal import SHORT, refused
from blockptq_testing.tensorfile import INDEX_NAME

EMBEDDING = "model.embed_tokens.weight"
FP8_WEIGHT = "model.layers.0.self_attn.q_b_proj.weight"
FP8_SCALE = FP8_WEIGHT + "_scale_inv"
EMPTY_TENSOR = b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'


# --- safetensors -----------------------------------------------------------------------------------


def set_length(shard: Path, length: int) -> None:
    replace_file(shard, struct.pack("<Q", length) + shard.read_bytes()[8:])


def set_header(shard: Path, text: bytes) -> None:
    replace_file(shard, struct.pack("<Q", len(text)) + text)


def edit_tensor(shard: Path, **changes: Any) -> None:
    edit_header(shard, lambda header: header[EMBEDDING].update(changes))


def move_tensor(shard: Path, by: int) -> None:
    def move(header: dict[str, Any]) -> None:
        header[EMBEDDING]["data_offsets"] = [offset + by for offset in header[EMBEDDING]["data_offsets"]]

    edit_header(shard, move)


SHARD_DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda shard: replace_file(shard, b""),
    "shorter_than_a_length": lambda shard: replace_file(shard, b"\1\0\0"),
    "truncated_data": lambda shard: os.truncate(own_copy(shard), shard.stat().st_size - 1),
    "truncated_header": lambda shard: os.truncate(own_copy(shard), 1000),
    "trailing_bytes": lambda shard: replace_file(shard, shard.read_bytes() + b"\0"),
    "lfs_pointer": lambda shard: replace_file(shard, LFS_POINTER),
    "header_length_0": lambda shard: set_length(shard, 0),
    "header_length_1": lambda shard: set_length(shard, 1),
    "header_length_past_the_end": lambda shard: set_length(shard, shard.stat().st_size),
    "header_length_200_MB": lambda shard: set_length(shard, 200_000_000),
    "header_length_2^64-1": lambda shard: set_length(shard, 2**64 - 1),
    "header_is_an_array": lambda shard: set_header(shard, b"[]"),
    "header_is_no_json": lambda shard: set_header(shard, b'{"a": '),
    "header_is_no_utf8": lambda shard: set_header(shard, b'{"\xff\xfe": 1}'),
    "header_is_deeply_nested": lambda shard: set_header(shard, b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "duplicate_keys": lambda shard: set_header(shard, b"{" + EMPTY_TENSOR + b"," + EMPTY_TENSOR + b"}"),
    "metadata_with_numbers": lambda shard: edit_header(shard, lambda h: h.update(__metadata__={"format": 1})),
    "unknown_dtype": lambda shard: edit_tensor(shard, dtype="BF17"),
    "negative_shape": lambda shard: edit_tensor(shard, shape=[-4096, -256]),
    "fractional_shape": lambda shard: edit_tensor(shard, shape=[4096.5, 256]),
    "huge_shape": lambda shard: edit_tensor(shard, shape=[2**40, 2**40]),
    "shape_of_another_size": lambda shard: edit_tensor(shard, shape=[4096, 255]),
    "reversed_offsets": lambda shard: edit_header(
        shard, lambda h: h[EMBEDDING].update(data_offsets=h[EMBEDDING]["data_offsets"][::-1])
    ),
    "overlapping_tensors": lambda shard: move_tensor(shard, -2),
    "a_hole": lambda shard: move_tensor(shard, 2),
    "offsets_past_the_end": lambda shard: move_tensor(shard, 1 << 40),
}  # fmt: skip


@pytest.mark.parametrize("damage", SHARD_DAMAGE.values(), ids=SHARD_DAMAGE.keys())
@pytest.mark.parametrize("command", ["eval", "inspect"])
def test_damaged_shard(tmp_path: Path, model: Path, damage: Callable[[Path], object], command: str) -> None:
    damage(model / FIRST_SHARD)
    args = ("--model", model, *SHORT) if command == "eval" else (model,)
    assert FIRST_SHARD in refused(command, *args, nothing_in=tmp_path)


# --- index -----------------------------------------------------------------------------------------


def rename_shard(model: Path, name: str) -> None:
    edit_index(model, lambda weights: weights.update({EMBEDDING: name}))


def link_shard_elsewhere(model: Path) -> None:
    (model / FIRST_SHARD).rename(model.parent / "elsewhere.safetensors")
    (model / FIRST_SHARD).symlink_to("../elsewhere.safetensors")


def add_tensor(model: Path, name: str, into: str) -> None:
    """Adds an empty tensor to a shard without listing it."""

    def add(header: dict[str, Any]) -> None:
        end = max(e["data_offsets"][1] for key, e in header.items() if key != "__metadata__")
        header[name] = {"dtype": "BF16", "shape": [0], "data_offsets": [end, end]}

    edit_header(model / into, add)


INDEX_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "parent_folder": (lambda m: rename_shard(m, "../model/" + FIRST_SHARD), EMBEDDING),
    "folder": (lambda m: rename_shard(m, "x/" + FIRST_SHARD), EMBEDDING),
    "absolute": (lambda m: rename_shard(m, f"/tmp/{FIRST_SHARD}"), EMBEDDING),
    "backslash": (lambda m: rename_shard(m, "x\\" + FIRST_SHARD), EMBEDDING),
    "nul": (lambda m: rename_shard(m, FIRST_SHARD + "\0.safetensors"), EMBEDDING),
    "no_name": (lambda m: rename_shard(m, ""), EMBEDDING),
    "number_for_a_name": (lambda m: rename_shard(m, 7), EMBEDDING),  # type: ignore[arg-type]
    "link_that_leaves_the_folder": (link_shard_elsewhere, FIRST_SHARD),
    "missing_shard": (lambda m: (m / FIRST_SHARD).unlink(), FIRST_SHARD),
    "tensor_in_another_shard": (lambda m: rename_shard(m, "model-00002-of-00004.safetensors"), EMBEDDING),
    "tensor_that_no_shard_has": (
        lambda m: edit_index(m, lambda w: w.update({"model.x.weight": FIRST_SHARD})), "model.x.weight",
    ),
    "same_tensor_twice": (
        lambda m: add_tensor(m, EMBEDDING, "model-00002-of-00004.safetensors"), EMBEDDING,
    ),
    "unlisted_tensor": (lambda m: add_tensor(m, "model.x.weight", FIRST_SHARD), "model.x.weight"),
    "no_weight_map": (lambda m: edit_json(m / INDEX_NAME, lambda i: i.pop("weight_map")), "weight_map"),
    "no_json": (lambda m: (m / INDEX_NAME).write_text("{"), INDEX_NAME),
    "lfs_pointer": (lambda m: (m / INDEX_NAME).write_bytes(LFS_POINTER), INDEX_NAME),
    "escapes_in_a_tensor_name": (lambda m: add_tensor(m, "model.x\n\x1b[31m", FIRST_SHARD), "model.x"),
    "escapes_in_a_shard_name": (lambda m: rename_shard(m, "model\n\x1b[31m.safetensors"), EMBEDDING),
    "no_index": (lambda m: (m / INDEX_NAME).unlink(), ".safetensors"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "named"), INDEX_DAMAGE.values(), ids=INDEX_DAMAGE.keys())
def test_damaged_index(tmp_path: Path, model: Path, damage: Callable[[Path], object], named: str) -> None:
    damage(model)
    assert named in refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)


# --- FP8 -------------------------------------------------------------------------------------------


def rename_scale(model: Path) -> None:
    edit_index(model, lambda weights: weights.update({"model.unknown": weights.pop(FP8_SCALE)}))
    edit_header(model / FIRST_SHARD, lambda header: header.update({"model.unknown": header.pop(FP8_SCALE)}))


def add_lone_scale(model: Path) -> None:
    add_tensor(model, "model.x.weight_scale_inv", into=FIRST_SHARD)
    edit_index(model, lambda weights: weights.update({"model.x.weight_scale_inv": FIRST_SHARD}))


def shrink_blocks(model: Path) -> None:
    def shrink(config: dict[str, Any]) -> None:
        config["quantization_config"]["weight_block_size"] = [64, 64]

    edit_json(model / "config.json", shrink)


def reshape_scale(model: Path) -> None:
    edit_header(model / FIRST_SHARD, lambda header: header[FP8_SCALE].update(shape=[2, 2]))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param(rename_scale, FP8_WEIGHT, id="weight_without_scale"),
        pytest.param(add_lone_scale, "model.x.weight", id="scale_without_weight"),
        pytest.param(reshape_scale, FP8_SCALE, id="wrong_scale_grid"),
        pytest.param(shrink_blocks, "_scale_inv", id="grid_of_other_blocks"),
    ],
)
def test_fp8_pairs_that_do_not_fit(tmp_path: Path, model: Path, damage: Callable[[Path], object], named: str) -> None:
    damage(model)
    assert named in refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)


@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_fp8_nan_code(tmp_path: Path, model: Path, code: int) -> None:
    overwrite_element(model, FP8_WEIGHT, 30_001, bytes([code]))
    message = refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)
    assert FP8_WEIGHT in message
    assert FIRST_SHARD in message


@pytest.mark.parametrize("scale", [float("inf"), float("nan"), 0.0, -1.0])
def test_fp8_scale_that_is_no_scale(tmp_path: Path, model: Path, scale: float) -> None:
    overwrite_element(model, FP8_SCALE, 1, struct.pack("<f", scale))
    message = refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)
    assert FP8_SCALE in message
    assert FIRST_SHARD in message


def test_bad_number_in_the_last_block(tmp_path: Path, model: Path) -> None:
    name = "model.layers.5.mlp.experts.15.down_proj.weight"
    shard = overwrite_element(model, name, 77, b"\x7f")
    message = refused("eval", "--model", model, "--seq_len", 512, "--max_chunks", 1, nothing_in=tmp_path)
    assert name in message
    assert shard.name in message


# --- config ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "256"),
        ("hidden_size", 0),
        ("hidden_size", -256),
        ("hidden_size", 256.5),
        ("hidden_size", 10**30),
        ("hidden_size", 128),
        ("vocab_size", 2**62),
        ("vocab_size", None),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", [6]),
        ("num_attention_heads", 0),
        ("num_attention_heads", 7),
        ("kv_lora_rank", -1),
        ("q_lora_rank", 127),
        ("qk_rope_head_dim", 31),
        ("v_head_dim", 0),
        ("intermediate_size", 0),
        ("moe_intermediate_size", True),
        ("n_routed_experts", 0),
        ("n_routed_experts", 17),
        ("num_experts_per_tok", 17),
        ("num_experts_per_tok", 0),
        ("n_group", 3),
        ("n_group", 0),
        ("topk_group", 5),
        ("first_k_dense_replace", -1),
        ("first_k_dense_replace", "two"),
        ("index_topk", 0),
        ("index_head_dim", 16),
        ("index_n_heads", 1.5),
        ("rms_norm_eps", "small"),
        ("rms_norm_eps", -1.0),
        ("rope_theta", 0),
        ("rope_scaling", "yarn"),
        ("routed_scaling_factor", "2.5"),
        ("norm_topk_prob", "yes"),
        ("scoring_func", "softmax"),
        ("hidden_act", "gelu"),
        ("tie_word_embeddings", 1),
        ("quantization_config", "fp8"),
        ("quantization_config", {"quant_method": "awq"}),
        ("quantization_config", {"quant_method": "fp8", "weight_block_size": [0, 128]}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_config(tmp_path: Path, model: Path, key: str, value: Any) -> None:
    edit_json(model / "config.json", lambda config: config.update({key: value}))
    message = refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)
    assert "config.json" in message


@pytest.mark.parametrize("key", ["rope_type", "factor", "original_max_position_embeddings"])
def test_bad_rope_scaling(tmp_path: Path, model: Path, key: str) -> None:
    bad = {"rope_type": "dynamic", "factor": -4, "original_max_position_embeddings": 0}
    edit_json(model / "config.json", lambda config: config["rope_scaling"].update({key: bad[key]}))
    message = refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)
    assert "config.json" in message
    assert "rope_scaling" in message


def test_escapes_in_the_config_are_not_printed(tmp_path: Path, model: Path) -> None:
    edit_json(model / "config.json", lambda config: config.update(model_type="x\n\x1b[31m\x07"))
    assert "config.json" in refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)


def test_unknown_model_type_lists_the_known(tmp_path: Path, model: Path) -> None:
    edit_json(model / "config.json", lambda config: config.update(model_type="gpt_bigcode"))
    message = refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)
    assert all(word in message for word in ("config.json", "gpt_bigcode", "deepseek_v32", "deepseek_v3"))


def test_auto_map_is_never_executed(tmp_path: Path, model: Path) -> None:
    (model / "modeling_evil.py").write_text(f"open({str(tmp_path / 'evil')!r}, 'w')\n")
    edit_json(
        model / "config.json",
        lambda config: config.update(model_type="evil", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"}),
    )
    assert "evil" in refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)
    assert not (tmp_path / "evil").exists()
