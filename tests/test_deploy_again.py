"""`blockptq deploy` of a deployed folder: the same integers in another layout, in other shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blockptq_testing.deployed import FORMATS, DeployedFolder, deploy, deployed, folder_bytes
from blockptq_testing.models import SHIPPED, require_model
from blockptq_testing.program import Argument, eval_json, run_blockptq

QUANTIZE = ("--nsamples", 4, "--seq_len", 128, "--eval_chunks", 0, "--threads", 2)


@pytest.mark.parametrize("quant_type", ["w8a8c16", "w4a8c8"])
@pytest.mark.parametrize("layout", FORMATS)
def test_another_layout_of_the_same_integers(tmp_path: Path, quant_type: str, layout: str) -> None:
    """Every file is the one that the source itself would have given."""
    other = next(name for name in FORMATS if name != layout)
    first = deployed(tmp_path / "first", "--quant_type", quant_type, "--format", layout)
    expected = deployed(tmp_path / "expected", "--quant_type", quant_type, "--format", other)
    again = deployed(tmp_path / "again", "--format", other, source=first.folder)
    assert folder_bytes(again.folder) == folder_bytes(expected.folder)
    deployed(tmp_path / "back", "--format", layout, source=again.folder)
    assert folder_bytes(tmp_path / "back") == folder_bytes(first.folder)


@pytest.mark.parametrize("layout", FORMATS)
def test_other_shards(tmp_path: Path, layout: str) -> None:
    args = ("--format", layout, "--max_shard_size", "700KB")
    first = deployed(tmp_path / "first", "--quant_type", "w4a8c8", "--format", layout)
    deployed(tmp_path / "again", *args, source=first.folder)
    deployed(tmp_path / "expected", "--quant_type", "w4a8c8", *args)
    assert folder_bytes(tmp_path / "again") == folder_bytes(tmp_path / "expected")


def quantize(output: Path, *more: Argument, source: Path = SHIPPED) -> None:
    finished = run_blockptq("quantize", "--model", source, "--output", output, *QUANTIZE, *more)
    assert finished.code == 0, finished.stderr


def test_a_run_is_deployed_in_a_second_format(tmp_path: Path) -> None:
    quantize(tmp_path / "first")
    quantize(tmp_path / "expected", "--format", "ascend")
    finished = run_blockptq(
        "deploy", "--run", tmp_path / "first.run", "--output_weight_path", tmp_path / "again", "--format", "ascend",
    )  # fmt: skip
    assert finished.code == 0 and finished.stderr == "", finished.stderr
    assert folder_bytes(tmp_path / "again") == folder_bytes(tmp_path / "expected")
    described = DeployedFolder(tmp_path / "again").description["tensors"]
    for name in DeployedFolder(tmp_path / "again").quantized_names():
        assert 0 < described[name]["relative_error"] < 0.3


def test_what_smoothing_changed_is_the_same_in_a_second_format(tmp_path: Path) -> None:
    """Norms and weights that a run transformed are not those of the source."""
    source = require_model("tiny-v32-outliers-bf16")
    quantize(tmp_path / "first", source=source)
    deployed(tmp_path / "rounded", "--quant_type", "w4a8c8", source=source)
    finished = run_blockptq(
        "deploy", "--run", tmp_path / "first.run", "--output_weight_path", tmp_path / "again", "--format", "ascend",
    )  # fmt: skip
    assert finished.code == 0 and finished.stderr == "", finished.stderr
    text = ("--seq_len", 256, "--max_chunks", 2, "--dtype", "fp32")
    first, again, rounded = (
        eval_json(tmp_path / "result.json", "--model", tmp_path / name, *text) for name in ("first", "again", "rounded")
    )
    assert again["mode"] == first["mode"] == "integer"
    assert again["nll_per_token"] == first["nll_per_token"] != rounded["nll_per_token"]
    left, right = (DeployedFolder(tmp_path / name).checkpoint for name in ("first", "rounded"))
    norms = [name for name in left.shard_of if name.endswith("layernorm.weight")]
    assert any((left.read(name) != right.read(name)).any() for name in norms)


def test_runs_that_cannot_be_deployed_again(tmp_path: Path) -> None:
    run = tmp_path / "first.run"
    again = ("deploy", "--run", run, "--output_weight_path", tmp_path / "again")
    run.mkdir()
    unfinished = run_blockptq(*again)
    assert unfinished.code == 2 and "finished quantize run" in unfinished.stderr
    (run / "result.json").write_text('{"output": "/nowhere/first"}')
    moved = run_blockptq(*again)
    assert moved.code == 2 and "/nowhere/first" in moved.stderr and "--input_weight_path" in moved.stderr
    assert run_blockptq(*again, "--quant_type", "w8a8c8").code == 2
    assert run_blockptq(*again, "--input_weight_path", SHIPPED).code == 2
    assert not (tmp_path / "again").exists()


def test_learned_parameters_come_too_late(tmp_path: Path) -> None:
    first = deployed(tmp_path / "first", "--quant_type", "w8a8c8")
    refused = deploy(tmp_path / "again", "--mla_param_path", tmp_path, source=first.folder)
    assert refused.code == 2 and "chosen already" in refused.stderr


def test_a_folder_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    first = deployed(tmp_path / "first", "--quant_type", "w8a8c8")
    other = deployed(tmp_path / "other", "--quant_type", "w4a8c8")
    shutil.copyfile(other.folder / "blockptq.json", first.folder / "blockptq.json")
    refused = deploy(tmp_path / "again", source=first.folder)
    assert refused.code == 2 and "expected 4 bits" in refused.stderr
    assert not (tmp_path / "again").exists()
