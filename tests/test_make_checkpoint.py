"""The generator of random checkpoints makes the official layout: that of the model that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blockptq_testing.models import SHIPPED, require_model
from blockptq_testing.numbers import bf16_to_f32, decode_fp8_blocks
from blockptq_testing.tensorfile import Checkpoint
from make_checkpoint import Dims, write_checkpoint

Layout = dict[str, tuple[str, tuple[int, ...]]]


def layout(folder: Path) -> Layout:
    checkpoint = Checkpoint(folder)
    infos = map(checkpoint.info, checkpoint.shard_of)
    return {info.name: (info.dtype, info.shape) for info in infos}


def without_fp8(tensors: Layout) -> Layout:
    return {
        name: ("BF16" if dtype == "F8_E4M3" else dtype, shape)
        for name, (dtype, shape) in tensors.items()
        if not name.endswith("_scale_inv")
    }


def test_fp8_layout_is_that_of_the_shipped_model(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", Dims(mtp=1), fp8=True, shard_bytes=3_000_000)
    assert layout(tmp_path / "model") == layout(SHIPPED)


def test_bf16_layout_has_no_scales(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", Dims(mtp=1))
    assert layout(tmp_path / "model") == without_fp8(layout(SHIPPED))


def test_deepseek_v3_is_the_same_without_indexer(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "v32", Dims())
    write_checkpoint(tmp_path / "v3", Dims(), model_type="deepseek_v3")
    v32, v3 = Checkpoint(tmp_path / "v32"), Checkpoint(tmp_path / "v3")
    assert set(v3.shard_of) == {name for name in v32.shard_of if ".indexer." not in name}
    for name in v3.shard_of:
        np.testing.assert_array_equal(v3.read(name), v32.read(name))


def test_qwen3_moe_layout_is_that_of_the_small_model(tmp_path: Path) -> None:
    model = require_model("tiny-qwen3moe-bf16")
    write_checkpoint(tmp_path / "model", Dims(blocks=4, dense_blocks=0), model_type="qwen3_moe")
    assert layout(tmp_path / "model") == layout(model)


def test_split_scales_lie_in_other_shards(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", Dims(), fp8=True, split_scales=True)
    shard_of = Checkpoint(tmp_path / "model").shard_of
    scales = [name for name in shard_of if name.endswith("_scale_inv")]
    assert scales
    assert all(shard_of[name] != shard_of[name.removesuffix("_scale_inv")] for name in scales)


@pytest.mark.parametrize("fp8", [False, True])
def test_weights_keep_activations_near_one(tmp_path: Path, fp8: bool) -> None:
    write_checkpoint(tmp_path / "model", Dims(hidden=1024, blocks=1, dense_blocks=1), fp8=fp8)
    checkpoint = Checkpoint(tmp_path / "model")
    name = "model.layers.0.self_attn.q_a_proj.weight"
    codes = checkpoint.read(name)
    if fp8:
        weight = decode_fp8_blocks(codes, checkpoint.read(name + "_scale_inv"), (128, 128))
    else:
        weight = bf16_to_f32(codes)
    assert weight.std() == pytest.approx(1024**-0.5, rel=0.1)
