"""Memory follows one block, not the model: peak resident set of checkpoints of different sizes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from blockptq_testing.program import run_blockptq
from make_checkpoint import PRESETS, Dims, write_checkpoint

GIB = 1 << 30
GROWTH = 1.05
LARGE_TESTS = "BLOCKPTQ_LARGE_TESTS"


@dataclass(frozen=True)
class Case:
    """Sizes of the models to compare, the text to run them on, and how weights are stored."""

    dims: Dims
    seq_len: int
    chunks: int
    fp8: bool
    few_blocks: int = 2
    chance: int = 0  # bytes that the heap and the caches of libraries leave to it


MODEST = Case(
    Dims(
        hidden=1024, intermediate=1024, moe_intermediate=512, blocks=2, dense_blocks=0, groups=8, topk=8,
        topk_groups=4, heads=16, q_lora=256, kv_lora=128, nope=64, rope=32, value=64,
    ),
    # The first blocks fill caches of bounded size (one entry a shape), which here are a part of the peak that counts.
    # A block of weights has 50 MB: what is left to chance hides none.
    seq_len=512, chunks=4, fp8=False, few_blocks=4, chance=16 << 20,
)  # fmt: skip
REAL = Case(
    replace(PRESETS["deepseek"], experts=16, blocks=2, dense_blocks=0, index_topk=256), seq_len=512, chunks=4, fp8=True
)

needs_space = pytest.mark.skipif(
    os.environ.get(LARGE_TESTS) != "1", reason=f"real DeepSeek sizes, 8 GB of disk: {LARGE_TESTS}=1"
)
cases = pytest.mark.parametrize("case", [MODEST, pytest.param(REAL, marks=needs_space)], ids=["modest", "real"])


@contextmanager
def checkpoint(folder: Path, case: Case, dims: Dims) -> Iterator[Path]:
    """A checkpoint that exists only as long as it is needed."""
    write_checkpoint(folder, dims, fp8=case.fp8)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def peak_memory(folder: Path, case: Case, dims: Dims) -> int:
    """Peak resident set of an evaluation, as the kernel counted it; the program must agree."""
    with checkpoint(folder / "model", case, dims) as model:
        finished = run_blockptq(
            "eval", "--model", model, "--seq_len", case.seq_len, "--max_chunks", case.chunks,
            "--json", folder / "result.json", timeout=1200,
        )  # fmt: skip
    assert finished.code == 0, finished.stderr
    reported = json.loads((folder / "result.json").read_text())["peak_rss_bytes"]
    assert reported == pytest.approx(finished.max_rss, rel=0.02)
    return finished.max_rss


def memory_promise(case: Case) -> int:
    """Hidden states + attention weights of one block + three experts + 1 GiB, in BF16."""
    d = case.dims
    attention = (
        d.hidden * (d.q_lora + d.kv_lora + d.rope)
        + d.q_lora * d.heads * (d.nope + d.rope)
        + d.kv_lora * d.heads * (d.nope + d.value)
        + d.heads * d.value * d.hidden
        + d.q_lora * d.index_heads * d.index_dim
        + d.hidden * (d.index_dim + d.index_heads)
    )
    experts = 3 * 3 * d.hidden * d.moe_intermediate
    states = 2 * case.seq_len * case.chunks * d.hidden
    return 2 * (states + attention + experts) + GIB


@cases
def test_peak_memory_does_not_follow_experts(tmp_path: Path, case: Case) -> None:
    few = peak_memory(tmp_path, case, replace(case.dims, experts=16))
    many = peak_memory(tmp_path, case, replace(case.dims, experts=64))
    assert many <= GROWTH * few + case.chance
    assert many <= memory_promise(case)


@cases
def test_peak_memory_does_not_follow_blocks(tmp_path: Path, case: Case) -> None:
    few = peak_memory(tmp_path, case, replace(case.dims, blocks=case.few_blocks))
    many = peak_memory(tmp_path, case, replace(case.dims, blocks=4 * case.few_blocks))
    assert many <= GROWTH * few + case.chance
    assert many <= memory_promise(case)


SOURCE = replace(MODEST.dims, dense_blocks=1, intermediate=2048)
TEXT = ("--nsamples", 4, "--seq_len", 256)


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "--seq_len", 1024, "--max_chunks", 4),
        ("eval", "--seq_len", 512, "--max_chunks", 4, "--train_mode", "block", "--reference", "MODEL"),
        ("extract", *TEXT, "--output_dir", "OUT"),
        ("train", *TEXT, "--output_dir", "OUT"),
        ("quantize", *TEXT, "--eval_chunks", 1, "--output", "OUT"),
    ],
    ids=["eval", "reference", "extract", "train", "quantize"],
)
def test_the_plan_foretells_the_peak(tmp_path: Path, command: tuple[str | int, ...]) -> None:
    """A plan may be somewhat too large; the caches of libraries and the heap leave a few percent to chance."""
    with checkpoint(tmp_path / "model", MODEST, SOURCE) as model:
        names = {"MODEL": model, "OUT": tmp_path / "out"}
        args = (command[0], "--model", model, *(names.get(str(word), word) for word in command[1:]))
        planned = run_blockptq(*args, "--dry_run", "--json", tmp_path / "plan.json")
        assert planned.code == 0, planned.stderr
        finished = run_blockptq(*args)
    assert finished.code == 0, finished.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())["peak_memory_bytes"]
    assert 0.92 * finished.max_rss <= plan <= 1.25 * finished.max_rss
