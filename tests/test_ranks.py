"""Several processes, or devices, on one job: the result of one; a rank that dies, or does something else, ends it."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blockptq_testing.models import SHIPPED, SHIPPED_BLOCKS, clone_model, require_model
from blockptq_testing.program import Argument, eval_json, journal_length, run_blockptq
from blockptq_testing.ranks import Job, Variables, mpirun, run_job, srun, torchrun
from blockptq_testing.tensorfile import read_file, tensor_files

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
EVAL = ("--model", SHIPPED, "--seq_len", 256, "--max_chunks", 5, "--dtype", "fp32")
# In bf16 an expert's sums round where their order differs: equal results show that it does not.
BF16 = ("--model", SHIPPED, "--seq_len", 300, "--max_chunks", 7)
LONG_EVAL = ("--model", SHIPPED, "--seq_len", 1024, "--max_chunks", 24)
QUANTIZE = ("quantize", "--model", SHIPPED, "--nsamples", 5, "--seq_len", 128, "--eval_chunks", 2, "--eval_seq_len", 128)

TEXT = ("--nsamples", 4, "--seq_len", 96)
EXTRACT = ("extract", "--model", SHIPPED, *TEXT, "--mtp", "--dtype", "fp32")
TRAIN = ("train", "--model", SHIPPED, "--w_bits", 4, "--dtype", "fp32")


def journal(folder: Path) -> list[dict[str, Any]]:
    """The lines of units in a run folder."""
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["unit"] != "block"]


def eval_ranks(size: int, json_file: Path, *arguments: Argument, variables: Variables = torchrun) -> dict[str, float]:
    run_job(size, "eval", *arguments, "--json", json_file, variables=variables)
    result: dict[str, float] = json.loads(json_file.read_text())
    return result


@pytest.mark.parametrize(("size", "variables"), [(2, torchrun), (3, srun), (5, mpirun)])
def test_eval_gives_the_number_of_one_process(tmp_path: Path, size: int, variables: Variables) -> None:
    one = eval_json(tmp_path / "one.json", *EVAL, "--mtp", env=ONE_THREAD)
    many = eval_ranks(size, tmp_path / "many.json", *EVAL, "--mtp", variables=variables)
    assert many["ppl"] == pytest.approx(one["ppl"], rel=1e-6)
    assert many["mtp_ppl"] == pytest.approx(one["mtp_ppl"], rel=1e-6)
    assert many["bytes_read"] <= 1.05 * one["bytes_read"]


def test_eval_in_bf16_against_a_reference(tmp_path: Path) -> None:
    arguments = (*BF16, "--train_mode", "block", "--reference", SHIPPED)
    one = eval_json(tmp_path / "one.json", *arguments, env=ONE_THREAD)
    many = eval_ranks(3, tmp_path / "many.json", *arguments)
    assert many["ppl"] == pytest.approx(one["ppl"], rel=1e-3)
    assert many["kl"] == pytest.approx(one["kl"], rel=1e-2)
    assert len(many["blocks"]) == SHIPPED_BLOCKS


def test_grouped_query_experts(tmp_path: Path) -> None:
    model = require_model("tiny-qwen3moe-bf16")
    arguments = ("--model", model, "--seq_len", 200, "--max_chunks", 3, "--dtype", "fp32")
    one = eval_json(tmp_path / "one.json", *arguments, env=ONE_THREAD)
    assert eval_ranks(2, tmp_path / "many.json", *arguments)["ppl"] == pytest.approx(one["ppl"], rel=1e-6)


def test_pieces_continue_with_another_number_of_ranks(tmp_path: Path) -> None:
    run = (*EVAL, "--output_dir", tmp_path / "run")
    eval_ranks(2, tmp_path / "a.json", *run, "--end", 2)
    eval_ranks(3, tmp_path / "b.json", *run, "--end", 4)
    last = eval_json(tmp_path / "c.json", *run, env=ONE_THREAD)
    assert last["ppl"] == pytest.approx(eval_json(tmp_path / "one.json", *EVAL, env=ONE_THREAD)["ppl"], rel=1e-6)


def test_devices_of_one_process(tmp_path: Path) -> None:
    one = eval_json(tmp_path / "one.json", *EVAL, env=ONE_THREAD)
    two = eval_json(tmp_path / "two.json", *EVAL, "--dev", "cpu,cpu", env=ONE_THREAD)
    assert two["ppl"] == pytest.approx(one["ppl"], rel=1e-6)
    assert two["bytes_read"] <= 1.05 * one["bytes_read"]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of one process."""
    folder = tmp_path_factory.mktemp("one") / "out"
    done = run_blockptq(*QUANTIZE, "--output", folder, env=ONE_THREAD)
    assert done.code == 0, done.stderr
    return tensor_files(folder)


@pytest.mark.parametrize("size", [2, 3, 6])  # of six, one has no sequence
def test_quantize_writes_the_same_bytes(tmp_path: Path, quantized: dict[str, bytes], size: int) -> None:
    run_job(size, *QUANTIZE, "--output", tmp_path / "out", "--json", tmp_path / "out.json")
    assert tensor_files(tmp_path / "out") == quantized
    units = [(unit["block"], unit["unit"]) for unit in json.loads((tmp_path / "out.json").read_text())["units"]]
    assert len(units) == len(set(units))


def test_quantize_on_two_devices_writes_the_same_bytes(tmp_path: Path, quantized: dict[str, bytes]) -> None:
    done = run_blockptq(*QUANTIZE, "--output", tmp_path / "out", "--dev", "cpu,cpu", env=ONE_THREAD)
    assert done.code == 0, done.stderr
    assert tensor_files(tmp_path / "out") == quantized


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_rank_stops_the_job_and_it_continues(tmp_path: Path, quantized: dict[str, bytes], seed: int) -> None:
    chance = random.Random(seed)
    command = (*QUANTIZE, "--output", tmp_path / "out")
    victim, units = chance.randrange(3), chance.randrange(1, 100)
    job = Job([command] * 3)
    job.send_when(lambda: journal_length(tmp_path / "out.run") >= units, victim, signal.SIGKILL)
    codes = job.wait()
    if codes != [0, 0, 0]:
        assert [code for rank, code in enumerate(codes) if rank != victim] in ([1, 1], [0, 0]), job.errors()
        run_job(3, *command)
    assert tensor_files(tmp_path / "out") == quantized


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one process."""
    folder = tmp_path_factory.mktemp("extract") / "data"
    done = run_blockptq(*EXTRACT, "--output_dir", folder, env=ONE_THREAD)
    assert done.code == 0, done.stderr
    return folder


def test_extract_finds_the_states_of_one_process(tmp_path: Path, extracted: Path) -> None:
    run_job(2, *EXTRACT, "--output_dir", tmp_path, "--end", 3)
    run_job(3, *EXTRACT, "--output_dir", tmp_path, "--json", tmp_path / "rest.json")
    assert json.loads((tmp_path / "rest.json").read_text())["begin"] == 3
    files = sorted(path.name for path in extracted.glob("*.safetensors"))
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == files
    for name in files:
        states, expected = read_file(tmp_path / name)["states"], read_file(extracted / name)["states"]
        np.testing.assert_allclose(states, expected, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "arguments",
    [
        (*TRAIN, "--lac", *TEXT, "--end", 4),
        (*TRAIN, "--train_mode", "mla", "--algorithm", "gptq", *TEXT),
        (*TRAIN, "--train_mode", "moe", *TEXT, "--end", 4),
        (*TRAIN, "--compat", "amct", "--epoch", 1, "--begin", 2, "--data_dir"),
        (*TRAIN, "--compat", "amct", "--epoch", 1, "--train_mode", "mla", "--data_dir"),
    ],
    ids=["block", "mla", "moe", "amct", "amct-mla"],
)
def test_train_learns_the_same(tmp_path: Path, extracted: Path, arguments: tuple[Argument, ...]) -> None:
    command = (*arguments, extracted) if arguments[-1] == "--data_dir" else arguments
    done = run_blockptq(*command, "--output_dir", tmp_path / "one", env=ONE_THREAD)
    assert done.code == 0, done.stderr
    run_job(3, *command, "--output_dir", tmp_path / "many", "--json", tmp_path / "many.json")
    done = run_blockptq(*command, "--output_dir", tmp_path / "devices", "--dev", "cpu,cpu", env=ONE_THREAD)
    assert done.code == 0, done.stderr
    assert tensor_files(tmp_path / "many") == tensor_files(tmp_path / "one")
    assert tensor_files(tmp_path / "devices") == tensor_files(tmp_path / "one")
    units = [(unit["block"], unit["unit"]) for unit in journal(tmp_path / "one")]
    assert [(unit["block"], unit["unit"]) for unit in journal(tmp_path / "many")] == units
    assert len(json.loads((tmp_path / "many.json").read_text())["units"]) == len(set(units))


@pytest.mark.parametrize("seed", range(2))
def test_training_with_a_killed_rank_continues(tmp_path: Path, extracted: Path, seed: int) -> None:
    chance = random.Random(seed)
    command = (*TRAIN, "--compat", "amct", "--epoch", 2, "--data_dir", extracted, "--output_dir")
    job = Job([(*command, tmp_path / "killed")] * 2)
    victim, units = chance.randrange(2), chance.randrange(1, 60)
    job.send_when(lambda: journal_length(tmp_path / "killed") >= units, victim, signal.SIGKILL)
    if job.wait() != [0, 0]:
        run_job(3, *command, tmp_path / "killed")
    done = run_blockptq(*command, tmp_path / "whole", env=ONE_THREAD)
    assert done.code == 0, done.stderr
    assert tensor_files(tmp_path / "killed") == tensor_files(tmp_path / "whole")


@pytest.mark.parametrize(("victim", "seconds"), [(0, 0.3), (0, 0.5), (1, 0.4), (1, 0.6)])
def test_a_rank_that_dies_on_its_way_to_the_others(victim: int, seconds: float) -> None:
    job = Job([("eval", *LONG_EVAL)] * 2, join_timeout=2)
    time.sleep(seconds)
    job.processes[victim].send_signal(signal.SIGKILL)
    assert job.wait()[1 - victim] == 1
    assert job.errors()[1 - victim].count("\n") == 1


def running(folder: Path) -> Callable[[], bool]:
    """Whether the job that keeps its run folder there has done a block."""
    return lambda: any(folder.glob("states_*"))


def test_the_lost_rank_is_named(tmp_path: Path) -> None:
    job = Job([("eval", *LONG_EVAL, "--output_dir", tmp_path)] * 3)
    job.send_when(running(tmp_path), 2, signal.SIGKILL)
    assert job.wait() == [1, 1, -signal.SIGKILL]
    for message in job.errors()[:2]:
        assert message.count("\n") == 1
        assert "rank 2" in message
        assert "is lost" in message


def test_writing_to_a_lost_rank_kills_nobody(tmp_path: Path) -> None:
    job = Job([("eval", *LONG_EVAL, "--output_dir", tmp_path)] * 2)
    job.send_when(running(tmp_path), 0, signal.SIGPIPE)
    assert job.wait() == [0, 0], job.errors()


def test_a_silent_rank_is_lost_after_a_while(tmp_path: Path) -> None:
    job = Job([("eval", *LONG_EVAL, "--output_dir", tmp_path)] * 2, lost_after=4)
    job.send_when(running(tmp_path), 1, signal.SIGSTOP)
    assert job.processes[0].wait(timeout=60) == 1
    job.processes[1].kill()
    job.wait()
    assert "rank 1" in job.errors()[0]
    assert "no sign of life for 4 s" in job.errors()[0]


def test_other_jobs_are_refused(tmp_path: Path) -> None:
    other = clone_model(SHIPPED, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 5000}))
    for arguments in [
        [("eval", *EVAL), ("eval", *EVAL[2:], "--model", other)],
        [("eval", *EVAL), ("eval", *EVAL[:-2])],
        [
            (*QUANTIZE, "--output", tmp_path / "out"),
            (*QUANTIZE, "--output", tmp_path / "out", "--quant_type", "w8a8c8"),
        ],
    ]:
        job = Job(arguments)
        assert job.wait(timeout=60) == [2, 2]
        for message in job.errors():
            assert message.startswith("blockptq: error: rank 1: ")
            assert "expected" in message


def test_an_error_of_one_rank_ends_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = (*QUANTIZE, "--output", tmp_path / "out")
    job = Job([(*QUANTIZE, "--output", tmp_path / "file"), command])
    codes = job.wait()
    assert codes[0] == 2
    assert codes[1] in (1, 2)
    assert "rank 0" in job.errors()[1] or "shared" in job.errors()[1]
