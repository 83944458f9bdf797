"""`blockptq quantize` stopped, out of space, in folders that it must not or cannot write to."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from blockptq_testing.models import SHIPPED
from blockptq_testing.program import ENVIRONMENT, Argument, binary, run_blockptq, stopped_blockptq

SHORT = ("--nsamples", 2, "--seq_len", 128, "--eval_chunks", 1, "--eval_seq_len", 128)


def arguments(output: Path, *more: Argument) -> list[Argument]:
    return ["quantize", "--model", SHIPPED, "--output", output, *SHORT, *more]


def quantized(output: Path, *more: Argument) -> dict[str, bytes]:
    """The bytes of a folder that is written without trouble."""
    finished = run_blockptq(*arguments(output, *more))
    assert (finished.code, finished.stderr) == (0, "")
    return {path.name: path.read_bytes() for path in sorted(output.iterdir()) if path.is_file()}


def looks_complete(output: Path) -> bool:
    return (output / "model.safetensors.index.json").exists()


def in_work(run: Path) -> bool:
    journal = run / "journal.jsonl"
    return journal.exists() and journal.read_text().count("\n") >= 10


def test_stopped_by_a_signal_it_goes_on(tmp_path: Path) -> None:
    expected = quantized(tmp_path / "whole")
    output = tmp_path / "stopped"
    run = tmp_path / "stopped.run"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = subprocess.Popen(
            [binary(), *map(str, arguments(output))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        before = len((run / "journal.jsonl").read_text().splitlines()) if run.exists() else 0
        while process.poll() is None and not (
            in_work(run) and len((run / "journal.jsonl").read_text().splitlines()) > before
        ):
            time.sleep(0.01)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == code
        assert (stdout, stderr) == (b"", b"")
        assert not looks_complete(output)
        assert not (run / "result.json").exists()
    assert quantized(output) == expected
    units = [(unit["block"], unit["unit"]) for unit in map(json.loads, (run / "journal.jsonl").open())]
    assert len(units) == len(set(units)), "no unit is made twice"


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with stopped_blockptq(*arguments(output), until=lambda: in_work(tmp_path / "out.run")):
        second = run_blockptq(*arguments(output))
        elsewhere = run_blockptq(*arguments(tmp_path / "other", "--work_dir", tmp_path / "out.run"))
    for refused in (second, elsewhere):
        assert refused.code == 2 and "another process works in this folder" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_blocks_may_be_made_on_different_days(tmp_path: Path) -> None:
    expected = quantized(tmp_path / "whole")
    output = tmp_path / "parts"
    first = run_blockptq(*arguments(output, "--end", 3))
    assert first.code == 0 and "blocks done     up to 3" in first.stdout
    assert not looks_complete(output)
    assert quantized(output) == expected
    result = json.loads((tmp_path / "parts.run" / "result.json").read_text())
    assert result["seconds"] >= sum(block["seconds"] for block in result["blocks"])


# --- disks ---


def under_mount(mount: str, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs with a mount that only the program sees; skips where that is not allowed."""
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting needs root")
    words = " ".join(f"'{word}'" for word in [*map(str, arguments(output)), *more])
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec '{binary()}' {words}"],
        capture_output=True, text=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip


@pytest.mark.parametrize("where", ["output", "run"])
def test_a_small_disk_is_named_before_the_work(tmp_path: Path, where: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    output, work = (disk / "out", tmp_path / "run") if where == "output" else (tmp_path / "out", disk / "run")
    size = "8m" if where == "output" else "256k"
    done = under_mount(f"mount -t tmpfs -o size={size} none {disk}", output, "--work_dir", str(work))
    assert done.returncode == 2, done.stderr
    assert "no space" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_disk_that_fills_up_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    """A limit on the size of files stands for the writer next door."""

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    output = tmp_path / "out"
    refused = run_blockptq(*arguments(output), before_start=limit)
    assert refused.code == 2 and len(refused.stderr.splitlines()) == 1
    assert "cannot write" in refused.stderr or "cannot be written" in refused.stderr
    assert not looks_complete(output)
    assert quantized(output) == quantized(tmp_path / "whole")


@pytest.mark.parametrize("where", ["output", "run"])
def test_a_read_only_folder_is_named(tmp_path: Path, where: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    output, work = (disk / "out", tmp_path / "run") if where == "output" else (tmp_path / "out", disk / "run")
    done = under_mount(f"mount -t tmpfs -o ro none {disk}", output, "--work_dir", str(work))
    assert done.returncode == 2, done.stderr
    assert str(disk) in done.stderr and len(done.stderr.splitlines()) == 1
