"""`blockptq eval` on folders that say how they are quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blockptq_testing.models import LLM_COMPRESSOR, SHIPPED
from blockptq_testing.program import eval_json, run_blockptq

# The folder declares an MTP layer that it does not carry, which is worth a warning.
TEXT = ("--log_level", "error", "--seq_len", 512, "--max_chunks", 4, "--dtype", "fp32")


def evaluate(tmp_path: Path, *arguments: Any) -> dict[str, Any]:
    return eval_json(tmp_path / "result.json", *TEXT, *arguments)


def test_integers_equal_fake_quantization(tmp_path: Path) -> None:
    integer = evaluate(
        tmp_path, "--model", LLM_COMPRESSOR, "--reference", LLM_COMPRESSOR, "--reference_fake_quant"
    )
    fake = evaluate(tmp_path, "--model", LLM_COMPRESSOR, "--fake_quant")
    assert (integer["mode"], fake["mode"]) == ("integer", "fake_quant")
    assert integer["quant_type"] == fake["quant_type"] == "w4a8c8"
    assert integer["ppl"] == pytest.approx(fake["ppl"], rel=1e-3)
    # Last-bit differences flip single codes, and those cascade through blocks, experts and selections.
    assert 0 <= integer["kl"] <= 3e-4


def test_the_cache_is_chosen(tmp_path: Path) -> None:
    quantized = evaluate(tmp_path, "--model", LLM_COMPRESSOR)
    same = evaluate(tmp_path, "--model", LLM_COMPRESSOR, "--cls", "c8")
    plain = evaluate(tmp_path, "--model", LLM_COMPRESSOR, "--cls", "bf16")
    assert quantized["ppl"] == same["ppl"] != plain["ppl"]
    assert plain["quant_type"] == "w4a8c16"


def test_close_to_the_source(tmp_path: Path) -> None:
    result = evaluate(tmp_path, "--model", LLM_COMPRESSOR, "--reference", SHIPPED)
    assert 1e-4 < result["kl"] < 0.02


@pytest.mark.parametrize("option", ["--fake_quant", "--reference_fake_quant"])
def test_source_models_have_no_integers(option: str) -> None:
    finished = run_blockptq("eval", "--model", SHIPPED, "--reference", SHIPPED, *TEXT, option)
    assert finished.code != 0
    assert f"{option}: {SHIPPED} wants no integer activations" in finished.stderr


def test_a_deployed_folder_says_itself_what_is_quantized() -> None:
    finished = run_blockptq("eval", "--model", LLM_COMPRESSOR, *TEXT, "--w_bits", 4)
    assert finished.code != 0
    assert "--train_mode origin" in finished.stderr
