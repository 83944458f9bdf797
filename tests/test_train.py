"""`blockptq train` from extracted states, by ranges, as the public sample does, and killed at any moment."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blockptq_testing.models import SHIPPED, SHIPPED_BLOCKS
from blockptq_testing.program import (
    ENVIRONMENT,
    REPOSITORY,
    Argument,
    binary,
    eval_json,
    killed_blockptq,
    run_blockptq,
    stopped_blockptq,
    succeed,
)
from blockptq_testing.tensorfile import read_file
from decode_fp8 import decode

SAMPLES, LENGTH = 3, 128
TEXT = ("--nsamples", SAMPLES, "--seq_len", LENGTH)
MODEL = ("--model", SHIPPED, "--threads", 2)
W4 = (*MODEL, "--w_bits", 4)
AMCT = (*W4, "--compat", "amct", "--epoch", 2)
EXPERTS = 16


def refused(*arguments: Argument) -> str:
    """The one line that a refused command prints."""
    done = run_blockptq(*arguments)
    assert (done.code, len(done.stderr.splitlines())) == (2, 1), done.stderr
    return done.stderr


def parameters(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("quant_parameters_*.safetensors"))}


def units(folder: Path) -> list[tuple[int, str]]:
    lines = (json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines())
    return [(line["block"], line["unit"]) for line in lines if line["unit"] != "block"]


def evaluated(json_file: Path, *arguments: Argument) -> float:
    """KL divergence to the float model."""
    text = ("--seq_len", 256, "--max_chunks", 4, "--dtype", "fp32", "--reference", SHIPPED)
    kl: float = eval_json(json_file, *W4, *text, *arguments)["kl"]
    return kl


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs and outputs of all blocks and the MTP layer."""
    folder = tmp_path_factory.mktemp("train") / "dump"
    succeed("extract", *MODEL, *TEXT, "--mtp", "--output_dir", folder)
    return folder


def test_extracted_states_give_what_the_text_gives(tmp_path: Path, dump: Path) -> None:
    succeed("train", *W4, *TEXT, "--end", 3, "--output_dir", tmp_path / "text")
    succeed("train", *W4, "--data_dir", dump, "--end", 3, "--output_dir", tmp_path / "dump")
    assert parameters(tmp_path / "text") == parameters(tmp_path / "dump")


def test_any_range_is_trained_by_itself(tmp_path: Path, dump: Path) -> None:
    succeed("train", *W4, "--data_dir", dump, "--begin", 4, "--output_dir", tmp_path / "run")
    blocks = range(4, SHIPPED_BLOCKS + 1)  # with the MTP layer
    assert set(parameters(tmp_path / "run")) == {f"quant_parameters_{block}.safetensors" for block in blocks}
    assert {block for block, _ in units(tmp_path / "run")} == set(blocks)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--begin", 2), "--data_dir"),
        (("--compat", "amct"), "--data_dir"),
        (("--base_lr", 0.1), "--base_lr"),
        (("--algorithm", "gptq", "--lac"), "--lac"),
        (("--data_dir", "nowhere"), "nowhere"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, arguments: tuple[Argument, ...], named: str) -> None:
    assert named in refused("train", *W4, *arguments, "--output_dir", tmp_path / "run")


def test_states_of_another_run_are_refused(tmp_path: Path, dump: Path) -> None:
    decode(SHIPPED, tmp_path / "decoded", "bf16")
    out = ("--output_dir", tmp_path / "run")
    other = ("--model", tmp_path / "decoded", "--data_dir", dump)
    assert "model: expected" in refused("train", *other, *out)
    assert "dtype: expected fp32" in refused("train", *W4, "--data_dir", dump, "--dtype", "fp32", *out)
    assert "--nsamples 4" in refused("train", *W4, "--data_dir", dump, "--nsamples", 4, *out)


def test_learned_clips_beat_searched_scales(tmp_path: Path) -> None:
    def loss(*arguments: Argument) -> float:
        folder = tmp_path / str(len(arguments))
        succeed("train", *W4, *arguments, "--nsamples", 16, "--seq_len", 256, "--output_dir", folder)
        units = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        experts = [unit for unit in units if unit["unit"].startswith("expert")]
        return float(np.mean([unit["loss_after"] / unit["loss_before"] for unit in experts]))

    searched = loss("--algorithm", "scale_search", "--end", 4)
    assert loss("--end", 4) < 0.95 * searched


def test_smoothing_between_up_and_down_stays_with_the_parameters(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    succeed("train", *W4, "--nsamples", 16, "--seq_len", 256, "--output_dir", run)
    kinds = {tensor.rsplit(".", 1)[1] for path in parameters(run) for tensor in read_file(run / path)}
    assert kinds == {"weight_scale", "weight_rows", "weight_columns"}  # no codes: they follow from these
    learned = ("--train_mode", "block", "--moe_param_dir", run)
    fake = evaluated(tmp_path / "learned.json", *learned)
    plain = evaluated(tmp_path / "plain.json", *learned[:2])
    assert fake < 0.9 * plain
    deploy = ("deploy", "--input_weight_path", SHIPPED, "--output_weight_path", out, "--quant_type", "w4a8c8")
    done = run_blockptq(*deploy, "--clip", "--moe_param_path", run)
    assert (done.code, done.stderr) == (0, ""), "verification compares with what was folded in"
    text = ("--seq_len", 256, "--max_chunks", 4, "--dtype", "fp32", "--reference", SHIPPED)
    # What is not quantized was FP8 and becomes BF16, which sends some tokens to other experts.
    assert eval_json(tmp_path / "deployed.json", "--model", out, *text)["kl"] == pytest.approx(fake, rel=0.2)
    # One of the two may stay in floating point: it has the factors as well.
    recipe = json.loads((REPOSITORY / "recipes" / "w4a8c8.json").read_text())
    down = {"role": "*.down_proj", "weight_bits": 16, "activation_bits": 16}
    (tmp_path / "mixed.json").write_text(json.dumps({**recipe, "linears": [*recipe["linears"], down]}))
    mixed = (*MODEL, *text, *learned, "--recipe", tmp_path / "mixed.json")
    assert eval_json(tmp_path / "kept.json", *mixed)["kl"] < fake
    deployed = ("--input_weight_path", SHIPPED, "--output_weight_path", tmp_path / "mixed")
    succeed("deploy", *deployed, "--recipe", tmp_path / "mixed.json", "--clip", "--moe_param_path", run)
    assert eval_json(tmp_path / "written.json", "--model", tmp_path / "mixed", *text)["kl"] < fake


def test_clips_of_activations_are_learned_on_demand(tmp_path: Path, dump: Path) -> None:
    folders = {name: tmp_path / name for name in ("lwc", "lac")}
    for name, folder in folders.items():
        succeed("train", *W4, "--data_dir", dump, "--end", 3, f"--{name}", "--output_dir", folder)
    names = {
        name: {tensor for block in range(3) for tensor in read_file(folder / f"quant_parameters_{block}.safetensors")}
        for name, folder in folders.items()
    }
    assert not any(tensor.endswith(".input_clip") for tensor in names["lwc"])
    learned = {tensor for tensor in names["lac"] if tensor.endswith(".input_clip")}
    assert any("down_proj" in tensor for tensor in learned)
    for tensor in learned:
        assert tensor.endswith(("down_proj.input_clip", "kv_b_proj.input_clip"))


@pytest.mark.parametrize("mode", ["mla", "moe"])
def test_compat_amct_is_evaluated_and_deployed(tmp_path: Path, dump: Path, mode: str) -> None:
    run = tmp_path / "run"
    succeed("train", *AMCT, "--data_dir", dump, "--train_mode", mode, "--begin", 2, "--end", 4, "--output_dir", run)
    moe = ["shared_experts", *(f"expert {e}" for e in range(EXPERTS))]
    assert units(run) == [(block, unit) for block in (2, 3) for unit in (["attention"] if mode == "mla" else moe)]
    tensors = read_file(run / "quant_parameters_3.safetensors")
    if mode == "mla":
        assert set(tensors) == {"model.layers.3.self_attn.kv_b_proj.input_clip"}
    else:
        expert = "model.layers.3.mlp.experts.7."
        suffixes = {name.removeprefix(expert) for name in tensors if name.startswith(expert)}
        sides = {f"{linear}_proj.weight_clip_{side}" for linear in ("gate", "up", "down") for side in ("min", "max")}
        assert suffixes == sides | {"gate_proj.input_clip", "down_proj.input_clip"}
    folder = ("--train_mode", mode, f"--{mode}_param_dir", run)
    assert evaluated(tmp_path / "a.json", *folder) != evaluated(tmp_path / "b.json", *folder[:2])
    deployed = run_blockptq(
        "deploy", "--input_weight_path", SHIPPED, "--output_weight_path", tmp_path / "out", "--quant_type", "w4a8c8",
        "--format", "ascend", "--clip", f"--{mode}_param_path", run,
    )  # fmt: skip
    assert deployed.code == 0, deployed.stderr
    # Blocks of their own may follow in the same folder; what is there is kept.
    before = parameters(run)
    succeed("train", *AMCT, "--data_dir", dump, "--train_mode", mode, "--begin", 4, "--end", 5, "--output_dir", run)
    after = parameters(run)
    assert {name: after[name] for name in before} == before
    assert len(after) == 3


def amct_arguments(dump: Path, folder: Path) -> list[Argument]:
    return ["train", *AMCT, "--data_dir", dump, "--train_mode", "moe", "--begin", 1, "--end", 3, "--output_dir", folder]


def text_arguments(_: Path, folder: Path) -> list[Argument]:
    return ["train", *W4, *TEXT, "--end", 3, "--lwc", "--lac", "--output_dir", folder]


@pytest.mark.parametrize("arguments", [text_arguments, amct_arguments], ids=["default", "amct"])
def test_killed_at_random_moments_ends_with_the_same_bytes(
    tmp_path: Path, dump: Path, arguments: Callable[[Path, Path], list[Argument]]
) -> None:
    succeed(*arguments(dump, tmp_path / "whole"))
    whole = parameters(tmp_path / "whole")
    folder = tmp_path / "killed"
    rng = random.Random(11)
    kills = 0
    while kills < 20:
        run = arguments(dump, folder)
        if killed_blockptq(*run, run_folder=folder, lines=rng.randrange(8), seconds=rng.uniform(0, 0.1)):
            kills += 1
        else:  # it came to its end
            assert parameters(folder) == whole
            shutil.rmtree(folder)
    succeed(*arguments(dump, folder))
    assert parameters(folder) == whole
    assert not list(folder.glob("*.tmp*"))
    assert not list(folder.glob("unit_*"))


def test_sigterm_keeps_the_work(tmp_path: Path, dump: Path) -> None:
    folder = tmp_path / "run"
    command = [binary(), *map(str, amct_arguments(dump, folder))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    while not list(folder.glob("unit_*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    done = units(folder)
    assert done
    succeed(*amct_arguments(dump, folder))
    assert units(folder)[: len(done)] == done
    assert len(units(folder)) == len(set(units(folder))), "no unit is learned twice"


def test_a_second_process_is_refused(tmp_path: Path, dump: Path) -> None:
    folder = tmp_path / "run"
    arguments = amct_arguments(dump, folder)
    with stopped_blockptq(*arguments, until=lambda: bool(list(folder.glob("unit_*")))):
        assert "another process" in refused(*arguments)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--w_bits", 8), "recipe"),
        (("--epoch", 3), "epochs"),
        (("--lwc",), "lac"),
        (("--nsamples", 2), "sequences"),
    ],
)
def test_another_run_in_the_folder_is_refused(
    tmp_path_factory: pytest.TempPathFactory, dump: Path, changed: tuple[Argument, ...], named: str
) -> None:
    folder = tmp_path_factory.mktemp("other") / "run"
    options = {"--w_bits": 4, "--epoch": 1, "--nsamples": 1, "--train_mode": "mla", "--end": 1, "--data_dir": dump}

    def command(given: dict[str, Argument], *flags: Argument) -> list[Argument]:
        pairs = [part for pair in given.items() for part in pair]
        return ["train", *MODEL, "--compat", "amct", *pairs, *flags, "--output_dir", folder]

    succeed(*command(options))
    other = command({**options, str(changed[0]): changed[1]}) if len(changed) == 2 else command(options, *changed)
    error = refused(*other)
    assert f" {named}: " in error or f" {named}/" in error
    assert "--restart" in error
