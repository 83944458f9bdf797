"""`blockptq extract`: inputs and outputs of every block as files, cut, killed, continued, refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from blockptq_testing.models import SHIPPED, SHIPPED_BLOCKS
from blockptq_testing.program import REPOSITORY, Argument, eval_json, run_blockptq, stopped_blockptq
from blockptq_testing.tensorfile import Checkpoint, read_file, read_header
from decode_fp8 import decode

SAMPLES, LENGTH, HIDDEN = 3, 512, 256
SHORT = ("--model", SHIPPED, "--nsamples", SAMPLES)
LONG = ("--model", SHIPPED, "--nsamples", 12)
CALIBRATION = REPOSITORY / "data" / "calib.jsonl.gz"


def extract(folder: Path, *args: Argument) -> dict[str, Any]:
    """Runs `blockptq extract` into `folder`, requires success in silence, and returns the JSON."""
    json_file = folder.with_suffix(".json")
    finished = run_blockptq("extract", *args, "--output_dir", folder, "--json", json_file)
    assert (finished.code, finished.stderr) == (0, "")
    assert "disk" in finished.stdout.splitlines()[0], "printed before anything starts"
    result: dict[str, Any] = json.loads(json_file.read_text())
    return result


def states(folder: Path, block: int, side: str) -> np.ndarray:
    return read_file(folder / f"block_{block:03}.{side}.safetensors")["states"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.safetensors")}


def expected_names(*blocks: int) -> set[str]:
    return {f"block_{block:03}.{side}.safetensors" for block in blocks for side in ("inputs", "outputs")}


def assert_same_files(found: Path, expected: Path) -> None:
    for name in names(found):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All blocks and the MTP layer in one run."""
    folder = tmp_path_factory.mktemp("extract") / "whole"
    extract(folder, *SHORT, "--mtp")
    return folder


def test_every_block_has_its_files(whole: Path) -> None:
    assert names(whole) == expected_names(*range(SHIPPED_BLOCKS + 1))
    for name in names(whole):
        (info,) = read_header(whole / name).values()
        assert (info.name, info.dtype, info.shape) == ("states", "BF16", (SAMPLES, LENGTH, HIDDEN))


def test_first_inputs_are_embeddings_of_the_text(whole: Path) -> None:
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    ids: list[int] = []
    with gzip.open(CALIBRATION, "rt") as file:
        while len(ids) < SAMPLES * LENGTH:
            ids += tokenizer.encode(json.loads(next(file))["text"]).ids
    embedding = Checkpoint(SHIPPED).read("model.embed_tokens.weight")
    expected = embedding[np.array(ids[: SAMPLES * LENGTH])].reshape(SAMPLES, LENGTH, HIDDEN)
    np.testing.assert_array_equal(states(whole, 0, "inputs"), expected)


@pytest.mark.parametrize("end", [1, 4, SHIPPED_BLOCKS])
def test_states_are_those_of_eval(tmp_path: Path, whole: Path, end: int) -> None:
    text = ("--data", CALIBRATION, "--seq_len", LENGTH, "--max_chunks", SAMPLES)
    eval_json(tmp_path / "eval.json", "--model", SHIPPED, *text, "--end", end, "--output_dir", tmp_path / "eval")
    expected = read_file(tmp_path / "eval" / f"states_{end:03}.safetensors")["states"]
    np.testing.assert_array_equal(states(whole, end - 1, "outputs"), expected)


def test_outputs_are_the_next_inputs_and_take_no_second_place(whole: Path) -> None:
    for block in range(SHIPPED_BLOCKS - 1):
        outputs = whole / f"block_{block:03}.outputs.safetensors"
        assert outputs.samefile(whole / f"block_{block + 1:03}.inputs.safetensors")
    last = states(whole, SHIPPED_BLOCKS - 1, "outputs")
    assert (states(whole, SHIPPED_BLOCKS, "inputs") != last).any(), "an MTP layer has inputs of its own"


@pytest.mark.parametrize("cuts", [(0, 2, SHIPPED_BLOCKS), (0, SHIPPED_BLOCKS, SHIPPED_BLOCKS + 1)])
def test_pieces_give_the_same_files(tmp_path: Path, whole: Path, cuts: tuple[int, ...]) -> None:
    folder = tmp_path / "run"
    for begin, end in zip(cuts, cuts[1:], strict=False):
        mtp = ("--mtp",) if end > SHIPPED_BLOCKS else ()
        result = extract(folder, *SHORT, *mtp, "--begin", begin, "--end", end)
        assert (result["begin"], result["end"]) == (begin, end), "earlier work is not done again"
    assert names(folder) == expected_names(*range(cuts[-1]))
    assert_same_files(folder, whole)


def test_range_from_nothing(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    result = extract(folder, *SHORT, "--begin", 3, "--end", 5)
    assert names(folder) == expected_names(3, 4)
    assert_same_files(folder, whole)
    assert (result["begin"], result["disk_bytes"]) == (0, 3 * SAMPLES * LENGTH * HIDDEN * 2)


def test_finished_work_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    extract(folder, *SHORT, "--end", 2)
    before = {name: (folder / name).stat().st_mtime_ns for name in names(folder)}
    again = extract(folder, *SHORT, "--end", 2)
    assert before == {name: (folder / name).stat().st_mtime_ns for name in names(folder)}
    assert (again["bytes_read"], again["disk_bytes"]) == (0, 0)


@pytest.fixture(scope="module")
def long_whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long") / "whole"
    extract(folder, *LONG)
    return folder


@pytest.mark.parametrize("killed_at", ["block_000.inputs", "block_002.outputs", "block_004.inputs"])
def test_killed_run_continues(tmp_path: Path, long_whole: Path, killed_at: str) -> None:
    folder = tmp_path / "run"
    with stopped_blockptq(
        "extract", *LONG, "--output_dir", folder, until=(folder / f"{killed_at}.safetensors").exists
    ) as process:
        process.kill()
        process.wait()
    finished = sum(name.endswith(".outputs.safetensors") for name in names(folder))
    result = extract(folder, *LONG)
    assert result["begin"] == finished
    assert names(folder) == expected_names(*range(SHIPPED_BLOCKS))
    assert not list(folder.glob("*.tmp*"))
    assert_same_files(folder, long_whole)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    extract(folder, *SHORT, "--end", 1)
    text = tmp_path / "other.txt"
    text.write_text("Another text than before. " * 2000)
    decode(SHIPPED, tmp_path / "decoded", "bf16")
    for args, named in [
        (("--model", SHIPPED, "--nsamples", SAMPLES + 1), "windows"),
        ((*SHORT, "--seq_len", 256), "seq_len"),
        ((*SHORT, "--dtype", "fp32"), "dtype"),
        ((*SHORT, "--dense_attention"), "attention"),
        ((*SHORT, "--data", text), "text"),
        (("--model", tmp_path / "decoded", *SHORT[2:]), "model"),
    ]:
        finished = run_blockptq("extract", *args, "--output_dir", folder)
        assert (finished.code, finished.stdout, len(finished.stderr.splitlines())) == (2, "", 1)
        assert "run.json" in finished.stderr
        assert f" {named}: " in finished.stderr
    result = extract(folder, *SHORT, "--dtype", "fp32", "--end", 1, "--restart")
    assert result["begin"] == 0
    assert states(folder, 0, "outputs").dtype == np.float32


def test_damaged_states_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    extract(folder, *SHORT, "--end", 1)
    (folder / "block_001.inputs.safetensors").unlink(missing_ok=True)
    outputs = folder / "block_000.outputs.safetensors"
    outputs.write_bytes(outputs.read_bytes()[:-1])
    finished = run_blockptq("extract", *SHORT, "--output_dir", folder)
    assert finished.code == 2
    assert outputs.name in finished.stderr


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--nsamples", 100000), "expected 100000"),
        (("--begin", 4, "--end", 3), "--begin"),
        (("--end", SHIPPED_BLOCKS + 1), "--end"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, args: tuple[Argument, ...], named: str) -> None:
    finished = run_blockptq("extract", "--model", SHIPPED, *args, "--output_dir", tmp_path / "run")
    assert finished.code == 2
    assert named in finished.stderr


def test_plan_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finished = run_blockptq("plan", "extract", *SHORT, "--output_dir", folder, "--json", tmp_path / "plan.json")
    assert (finished.code, finished.stderr) == (0, "")
    assert "free disk" in finished.stdout
    assert not folder.exists()
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["disk_bytes"] == (SHIPPED_BLOCKS + 1) * SAMPLES * LENGTH * HIDDEN * 2
