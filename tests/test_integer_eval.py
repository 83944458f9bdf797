"""`blockptq eval` on folders that say how they are quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blockptq_testing.models import LLM_COMPRESSOR, SHIPPED, require_model
from blockptq_testing.program import eval_json, run_blockptq

# The folder declares an MTP layer that it does not carry, which is worth a warning.
TEXT = ("--log_level", "error", "--seq_len", 512, "--max_chunks", 2, "--dtype", "fp32")


def evaluate(tmp_path: Path, *arguments: Any) -> dict[str, Any]:
    return eval_json(tmp_path / "result.json", *TEXT, *arguments)


def expect_integers_equal_fake_quantization(tmp_path: Path, folder: Path, quant_type: str) -> None:
    integer = evaluate(tmp_path, "--model", folder, "--reference", folder, "--reference_fake_quant")
    fake = evaluate(tmp_path, "--model", folder, "--fake_quant")
    assert (integer["mode"], fake["mode"]) == ("integer", "fake_quant")
    assert integer["quant_type"] == fake["quant_type"] == quant_type
    assert integer["ppl"] == pytest.approx(fake["ppl"], rel=1e-3)
    assert abs(integer["kl"]) <= 1e-4


@pytest.mark.parametrize("quant_type", ["w8a8c8", "w4a8c8"])
@pytest.mark.parametrize(
    "model", ["tiny-v32-bf16", "tiny-v32-fp8", "tiny-v32-outliers-bf16", "tiny-qwen3moe-bf16"]
)
def test_integers_equal_fake_quantization(tmp_path: Path, model: str, quant_type: str) -> None:
    source = SHIPPED if model == SHIPPED.name else require_model(model)
    folder = tmp_path / "deployed"
    finished = run_blockptq(
        "deploy", "--input_weight_path", source, "--output_weight_path", folder, "--quant_type", quant_type
    )
    assert finished.code == 0, finished.stderr
    expect_integers_equal_fake_quantization(tmp_path, folder, quant_type)


def test_integers_equal_fake_quantization_of_llm_compressor(tmp_path: Path) -> None:
    expect_integers_equal_fake_quantization(tmp_path, LLM_COMPRESSOR, "w4a8c8")


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
