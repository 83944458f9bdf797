"""Every command on families other than the shipped one, with random weights in their official layouts.

Qwen3-MoE from BF16 and from FP8 blocks, with the output head apart and tied, with dense blocks of both kinds
(`mlp_only_layers`, `decoder_sparse_step`); dense Qwen3 and Llama.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blockptq_testing.layouts import Dims
from blockptq_testing.program import Argument, eval_json, run_blockptq, succeed
from make_checkpoint import write_checkpoint

SMALL = {
    "hidden": 96, "intermediate": 160, "moe_intermediate": 48, "experts": 8, "heads": 4, "kv_heads": 2, "blocks": 4
}  # fmt: skip
CALIBRATE = ("--nsamples", 16, "--seq_len", 128)
# Sixteen: of fewer tokens, those that go to another expert by chance make most of the error.
EVALUATE = ("--seq_len", 128, "--max_chunks", 16, "--dtype", "fp32")
AGREE = ("--seq_len", 128, "--max_chunks", 3, "--dtype", "fp32")


@dataclass(frozen=True)
class Case:
    model_type: str
    dims: Dims
    fp8: bool
    experts: tuple[int, ...]  # of the blocks, as their positions

    @property
    def units(self) -> set[tuple[int, str]]:
        """What is learned in a run over all of it, but for smoothing."""
        learned = {(block, "attention") for block in range(self.dims.blocks)}
        for block in range(self.dims.blocks):
            names = [f"expert {e}" for e in range(self.dims.experts)] if block in self.experts else ["mlp"]
            learned |= {(block, name) for name in names}
        return learned


CASES = {
    "moe": Case("qwen3_moe", Dims(**SMALL, dense_blocks=0), False, (0, 1, 2, 3)),
    "moe-tied-sparse": Case("qwen3_moe", Dims(**SMALL, dense_blocks=2, sparse_step=2, tied=1), False, (3,)),
    "moe-fp8": Case("qwen3_moe", Dims(**SMALL, dense_blocks=1), True, (1, 2, 3)),
    "moe-fp8-tied-sparse": Case("qwen3_moe", Dims(**SMALL, dense_blocks=0, sparse_step=2, tied=1), True, (1, 3)),
    "qwen3-tied": Case("qwen3", Dims(**SMALL, tied=1), False, ()),
    "llama-fp8": Case("llama", Dims(**SMALL), True, ()),
}


@dataclass(frozen=True)
class Source:
    folder: Path
    case: Case


@pytest.fixture(scope="module", params=CASES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp("family") / "model"
    write_checkpoint(folder, case.dims, fp8=case.fp8, model_type=case.model_type)
    yield Source(folder, case)


def units(result: dict[str, Any]) -> set[tuple[int, str]]:
    return {(unit["block"], unit["unit"]) for unit in result["units"]} - {(unit["block"], "norm") for unit in result["units"]}


def error(tmp_path: Path, source: Source, model: Path, *arguments: Argument) -> float:
    """Of the last block's output, relative to the source's."""
    result = eval_json(
        tmp_path / "error.json", "--model", model, "--reference", source.folder, *EVALUATE, *arguments
    )
    last: float = result["blocks"][-1]["relative_error"]
    return last


def expect_what_was_deployed(tmp_path: Path, source: Source, folder: Path) -> None:
    """The folder is whole, and its integers are what fake quantization computes."""
    succeed("inspect", folder, "--verify")
    result = eval_json(
        tmp_path / "integer.json", "--model", folder, "--reference", folder, "--reference_fake_quant", *AGREE
    )
    assert result["mode"] == "integer"
    assert abs(result["kl"]) <= 1e-4
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] == bool(source.case.dims.tied)


@pytest.mark.parametrize(("mode", "learns"), [("mla", "attention"), ("moe", "mlp and experts"), ("block", "all")])
def test_learned_parameters(tmp_path: Path, source: Source, mode: str, learns: str) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    succeed("extract", "--model", source.folder, "--output_dir", data, *CALIBRATE)
    mode_options = ("--train_mode", mode, "--w_bits", 4)
    succeed(
        "train", "--model", source.folder, "--data_dir", data, "--output_dir", run, "--lac", "--lwc", *mode_options,
        "--json", tmp_path / "train.json",
    )  # fmt: skip
    result = json.loads((tmp_path / "train.json").read_text())
    assert units(result) == source.case.units
    for unit in result["units"]:
        learned = learns == "all" or (unit["unit"] == "attention") == (learns == "attention")
        assert (unit["loss_before"] > 0) == learned, unit
        assert unit["loss_after"] <= unit["loss_before"]
    succeed("report", run, "--output", tmp_path / "page.html")
    succeed("inspect", run)
    plain = error(tmp_path, source, source.folder, *mode_options)
    after = error(tmp_path, source, source.folder, *mode_options, "--mla_param_dir", run)
    assert after != plain and after < 1.5 * plain  # random weights: little to learn
    if mode == "block":
        succeed(
            "deploy", "--input_weight_path", source.folder, "--output_weight_path", tmp_path / "out",
            "--quant_type", "w4a8c8", "--mla_param_path", run, "--format", "ascend",
        )  # fmt: skip
        expect_what_was_deployed(tmp_path, source, tmp_path / "out")


@pytest.mark.parametrize("quant_type", ["w8a8c8", "w4a8c8"])
@pytest.mark.parametrize("layout", ["compressed-tensors", "ascend"])
def test_deployed_folders(tmp_path: Path, source: Source, layout: str, quant_type: str) -> None:
    succeed(
        "deploy", "--input_weight_path", source.folder, "--output_weight_path", tmp_path / "out",
        "--quant_type", quant_type, "--format", layout,
    )  # fmt: skip
    expect_what_was_deployed(tmp_path, source, tmp_path / "out")


@pytest.mark.parametrize("quant_type", ["w8a8c8", "w4a8c8"])
def test_quantized_folders(tmp_path: Path, source: Source, quant_type: str) -> None:
    out = tmp_path / "out"
    succeed(
        "quantize", "--model", source.folder, "--output", out, "--quant_type", quant_type, *CALIBRATE,
        "--eval_chunks", 2, "--eval_seq_len", 128, "--json", tmp_path / "quantize.json",
    )  # fmt: skip
    result = json.loads((tmp_path / "quantize.json").read_text())
    assert units(result) == source.case.units
    assert result["bytes_read"] <= 1.3 * result["checkpoint_bytes"]  # embedding and head twice
    assert (tmp_path / "out.run" / "report.html").exists()
    expect_what_was_deployed(tmp_path, source, out)
    plain = error(tmp_path, source, source.folder, "--train_mode", "block", "--w_bits", quant_type[1])
    assert error(tmp_path, source, out) < 1.5 * plain  # as above


def test_plans(tmp_path: Path, source: Source) -> None:
    folder, out = source.folder, tmp_path / "out"
    for command in (
        ("eval", "--model", folder, *EVALUATE),
        ("extract", "--model", folder, "--output_dir", out, *CALIBRATE),
        ("train", "--model", folder, "--output_dir", out, *CALIBRATE),
        ("quantize", "--model", folder, "--output", out, *CALIBRATE),
        ("deploy", "--input_weight_path", folder, "--output_weight_path", out, "--quant_type", "w4a8c8"),
    ):
        plan = succeed("plan", *command)
        assert "peak memory" in plan and "bytes to read" in plan and "units of work" in plan
    assert not out.exists()
    done = run_blockptq("train", "--model", folder, "--compat", "amct", "--data_dir", folder, "--output_dir", out)
    assert (done.code, done.stderr.count("\n")) == (2, 1)
