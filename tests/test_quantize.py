"""`blockptq train` and `quantize`: what is learned is better than plain rounding, survives kills, and is what runs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from blockptq_testing.models import SHIPPED
from blockptq_testing.program import Argument, eval_json, killed_blockptq, run_blockptq, succeed
from blockptq_testing.tensorfile import tensor_files

FEW = ("--nsamples", 6, "--seq_len", 256)
SHORT = ("--seq_len", 512, "--max_chunks", 6, "--dtype", "fp32", "--reference", SHIPPED)


def kl_of(tmp_path: Path, *arguments: Argument) -> float:
    result: float = eval_json(tmp_path / "kl.json", "--model", SHIPPED, "--train_mode", "block", *SHORT, *arguments)["kl"]
    return result


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "gptq"
    succeed(
        "train", "--model", SHIPPED, "--output_dir", folder, "--w_bits", 4, "--algorithm", "gptq",
        "--json", folder.parent / "train.json", *FEW,
    )  # fmt: skip
    return folder


def test_learned_codes_are_better_than_plain_rounding(learned: Path, tmp_path: Path) -> None:
    floor = kl_of(tmp_path, "--w_bits", 16)
    plain = kl_of(tmp_path, "--w_bits", 4) - floor
    gptq = kl_of(tmp_path, "--w_bits", 4, "--mla_param_dir", learned) - floor
    assert plain > 0
    assert gptq <= 0.75 * plain


def test_every_unit_is_reported(learned: Path) -> None:
    result = json.loads((learned.parent / "train.json").read_text())
    units = {(unit["block"], unit["unit"]) for unit in result["units"]}
    assert len(units) == len(result["units"])
    assert {block for block, _ in units} == set(range(len(result["blocks"])))
    assert all(unit["loss_after"] <= unit["loss_before"] for unit in result["units"])
    assert all(unit["tokens"] > 0 or "fallback" in unit for unit in result["units"])


def test_parameters_of_another_model_are_refused(learned: Path, tmp_path: Path) -> None:
    run = json.loads((learned / "run.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text(json.dumps({**run, "model": "0" * 64}))
    for name, data in tensor_files(learned).items():
        (other / name).write_bytes(data)
    done = run_blockptq(
        "eval", "--model", SHIPPED, "--train_mode", "block", "--w_bits", 4, "--mla_param_dir", other,
        "--seq_len", 128, "--max_chunks", 1,
    )  # fmt: skip
    assert done.code == 2
    assert "another model" in done.stderr


def quantize_arguments(output: Path) -> list[Argument]:
    result = output.with_suffix(".json")
    return ["quantize", "--model", SHIPPED, "--output", output, "--json", result, "--threads", 2, *FEW]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized") / "out"
    succeed(*quantize_arguments(folder))
    return folder


def test_killed_run_ends_with_the_same_bytes(quantized: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    rng = random.Random(7)
    for _ in range(4):
        run = quantize_arguments(folder)
        assert killed_blockptq(
            *run, run_folder=tmp_path / "killed.run", lines=rng.randrange(25), seconds=rng.uniform(0, 0.1)
        )
    succeed(*quantize_arguments(folder))
    assert tensor_files(folder) == tensor_files(quantized)


def test_deployed_folder_is_what_was_measured(quantized: Path, tmp_path: Path) -> None:
    result = json.loads(quantized.with_suffix(".json").read_text())
    assert 0 < result["held_out"]["kl"] < 0.1
    assert result["bytes_read"] <= 1.05 * result["checkpoint_bytes"]
    integer = eval_json(tmp_path / "i.json", "--model", quantized, *SHORT)
    twin = eval_json(tmp_path / "f.json", "--model", quantized, "--fake_quant", *SHORT)
    assert integer["ppl"] == pytest.approx(twin["ppl"], rel=1e-3)
    assert integer["kl"] == pytest.approx(twin["kl"], rel=0.1)


def test_another_recipe_is_refused(learned: Path) -> None:
    done = run_blockptq("train", "--model", SHIPPED, "--output_dir", learned, "--w_bits", 8, *FEW)
    assert done.code == 2
    assert "--restart" in done.stderr
