"""An FP8 checkpoint gives the perplexity of the same weights decoded by the NumPy reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from blockptq_testing.models import SHIPPED
from blockptq_testing.program import eval_json
from decode_fp8 import decode
from make_checkpoint import Dims, write_checkpoint

SHORT = ("--seq_len", 512, "--max_chunks", 4)
PARTIAL_BLOCKS = replace(Dims(), hidden=192, intermediate=320, moe_intermediate=96, blocks=3, q_lora=72)


def relative_difference(folder: Path, fp8: Path, target: str, compute: str) -> float:
    decode(fp8, folder / target, target)
    coded = eval_json(folder / "1.json", "--model", fp8, *SHORT, "--dtype", compute)
    decoded = eval_json(folder / "2.json", "--model", folder / target, *SHORT, "--dtype", compute)
    return abs(float(coded["ppl"]) / float(decoded["ppl"]) - 1)


def test_shipped_model_in_fp32(tmp_path: Path) -> None:
    assert relative_difference(tmp_path, SHIPPED, "f32", "fp32") <= 1e-4


def test_shipped_model_in_bf16(tmp_path: Path) -> None:
    assert relative_difference(tmp_path, SHIPPED, "bf16", "bf16") <= 1e-4


@pytest.mark.parametrize("split_scales", [False, True])
def test_partial_blocks_and_scales_in_other_shards(tmp_path: Path, split_scales: bool) -> None:
    fp8 = tmp_path / "fp8"
    write_checkpoint(fp8, PARTIAL_BLOCKS, fp8=True, split_scales=split_scales, shard_bytes=500_000)
    assert relative_difference(tmp_path, fp8, "f32", "fp32") <= 1e-5


def test_qwen3_moe(tmp_path: Path) -> None:
    fp8 = tmp_path / "fp8"
    dims = Dims(hidden=192, intermediate=320, moe_intermediate=96, blocks=3, dense_blocks=1)
    write_checkpoint(fp8, dims, fp8=True, model_type="qwen3_moe")
    assert relative_difference(tmp_path, fp8, "f32", "fp32") <= 1e-5


def test_deepseek_v3_is_deepseek_v32_with_dense_attention(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "v32", Dims())
    write_checkpoint(tmp_path / "v3", Dims(), model_type="deepseek_v3")
    dense = eval_json(tmp_path / "1.json", "--model", tmp_path / "v32", *SHORT, "--dense_attention")
    v3 = eval_json(tmp_path / "2.json", "--model", tmp_path / "v3", *SHORT)
    assert v3["ppl"] == dense["ppl"]
