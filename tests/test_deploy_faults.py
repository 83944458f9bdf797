"""`blockptq deploy` killed, out of space, on folders that are not its own and sources that are broken."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockptq_testing.damage import FIRST_SHARD, flip_bit, overwrite_element
from blockptq_testing.deployed import deploy, deployed, folder_bytes, looks_complete
from blockptq_testing.models import SHIPPED, own_copy
from blockptq_testing.program import ENVIRONMENT, Argument, binary, stopped_blockptq
from blockptq_testing.tensorfile import INDEX_NAME

EXPERT = "model.layers.3.mlp.experts.5"

# --- interruptions ---


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    args = ("--quant_type", "w4a8c8", "--format", "ascend", "--max_shard_size", "300KB")
    start = time.monotonic()
    deployed(tmp_path / "undisturbed", *args)
    seconds = time.monotonic() - start
    expected = folder_bytes(tmp_path / "undisturbed")
    moments = random.Random(0)
    output = tmp_path / "killed"
    command = [binary(), "deploy", "--input_weight_path", SHIPPED, "--output_weight_path", output, *args]
    killed = 0
    for _ in range(20):
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT,
        )  # fmt: skip
        time.sleep(moments.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
            complete = looks_complete(output)
            assert not complete or folder_bytes(output).items() >= expected.items()
        if moments.random() < 0.3:
            shutil.rmtree(output, ignore_errors=True)  # begin anew, so that early moments come too
    assert killed > 0
    finished = deploy(output, *args)
    assert finished.code == 0, finished.stderr
    assert folder_bytes(output) == expected


def test_finished_shards_are_not_written_again(tmp_path: Path) -> None:
    args = ("--quant_type", "w8a8c8")
    deployed(tmp_path / "out", *args)
    modified = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    finished = deploy(tmp_path / "out", *args)
    assert finished.code == 0 and "complete already" in finished.stdout
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == modified


@contextmanager
def unfinished(output: Path, *args: Argument, source: Path = SHIPPED) -> Iterator[list[str]]:
    """Kills a process when some shards are finished; their names."""
    journal = output / ".deploy.jsonl"

    def lines() -> list[str]:
        return journal.read_text().splitlines()[1:] if journal.exists() else []

    arguments = ("--input_weight_path", source, "--output_weight_path", output, *args)
    with stopped_blockptq("deploy", *arguments, until=lambda: len(lines()) >= 2):
        pass
    yield [json.loads(line)["shard"] for line in lines()]


def test_what_changed_since_an_interruption_is_named(tmp_path: Path, model: Path) -> None:
    args = ("--quant_type", "w8a8c8", "--max_shard_size", "300KB")
    output = tmp_path / "out"
    with unfinished(output, *args, source=model) as shards:
        os.truncate(output / shards[0], 1000)
        refused = deploy(output, *args, source=model)
        assert refused.code == 2 and shards[0] in refused.stderr and "--restart" in refused.stderr
        deployed(output, *args, "--restart", source=model)
    with unfinished(output := tmp_path / "again", *args, source=model):
        overwrite_element(model, "model.layers.0.mlp.up_proj.weight_scale_inv", 0, struct.pack("<f", 0.5))
        (model / INDEX_NAME).write_text((model / INDEX_NAME).read_text() + " ")
        refused = deploy(output, *args, source=model)
        assert refused.code == 2 and "source" in refused.stderr and "--restart" in refused.stderr
        assert not looks_complete(output)


# --- refusals ---


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    for more in ((), ("--restart",)):
        refused = deploy(foreign, "--quant_type", "w8a8c8", *more)
        assert refused.code == 2 and "notes.txt" in refused.stderr
        assert [path.name for path in foreign.iterdir()] == ["notes.txt"]
    source = tmp_path / "source"
    shutil.copytree(SHIPPED, source)
    before = folder_bytes(source)
    refused = deploy(source, "--quant_type", "w8a8c8", "--restart", source=source)
    assert refused.code == 2 and "is the source" in refused.stderr
    assert folder_bytes(source) == before


def test_another_run_is_refused_or_replaced(tmp_path: Path) -> None:
    deployed(tmp_path / "out", "--quant_type", "w8a8c8")
    refused = deploy(tmp_path / "out", "--quant_type", "w4a8c8")
    assert refused.code == 2 and "recipe" in refused.stderr and "--restart" in refused.stderr
    deployed(tmp_path / "fresh", "--quant_type", "w4a8c8")
    deployed(tmp_path / "out", "--quant_type", "w4a8c8", "--restart")
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "fresh")


def test_a_corrupted_source_leaves_nothing_complete(tmp_path: Path, model: Path) -> None:
    overwrite_element(model, f"{EXPERT}.up_proj.weight", 7, b"\x7f")
    refused = deploy(tmp_path / "out", "--quant_type", "w8a8c8", source=model)
    assert refused.code == 2
    assert f"{EXPERT}.up_proj.weight" in refused.stderr and "NaN" in refused.stderr
    assert not looks_complete(tmp_path / "out")


SOURCE_DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda shard: os.truncate(own_copy(shard), shard.stat().st_size // 2),
    "truncated_header": lambda shard: os.truncate(own_copy(shard), 1000),
    "flipped_header_length": lambda shard: flip_bit(shard, 1),
} | {
    # Behind the metadata: braces, quotes, digits and names.
    f"flipped_header_byte_{offset}": lambda shard, offset=offset: flip_bit(shard, offset)
    for offset in (8, 100, 333, 1000, 2222, 4444)
}  # fmt: skip


@pytest.mark.parametrize("damage", SOURCE_DAMAGE.values(), ids=SOURCE_DAMAGE.keys())
def test_a_broken_source_shard_is_named(tmp_path: Path, model: Path, damage: Callable[[Path], object]) -> None:
    damage(model / FIRST_SHARD)
    refused = deploy(tmp_path / "out", "--quant_type", "w8a8c8", source=model)
    assert refused.code == 2
    assert FIRST_SHARD in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def mounted(command: str) -> bool:
    """Whether a mount namespace of our own allows `command`."""
    return subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, check=False).returncode == 0


def deploy_under_mount(mount: str, output: Path) -> subprocess.CompletedProcess[str]:
    script = f'{mount} && exec "$0" deploy --quant_type w8a8c8 --input_weight_path "$1" --output_weight_path "$2"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(binary()), str(SHIPPED), str(output)],
        capture_output=True, text=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounted(f"mount -t tmpfs -o size=8m none {disk}"):
        pytest.skip("mounting a small disk needs root")
    refused = deploy_under_mount(f"mount -t tmpfs -o size=8m none {disk}", disk / "out")
    assert refused.returncode == 2
    assert "no space" in refused.stderr


def test_a_disk_that_fills_up_while_writing_is_named(tmp_path: Path) -> None:
    """The space was there at the start; a limit on the size of files stands for the writer next door."""

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    refused = deploy(tmp_path / "out", "--quant_type", "w8a8c8", before_start=limit)
    assert refused.code == 2
    assert "cannot write" in refused.stderr
    assert not looks_complete(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tmp-*")), "what was begun is removed"
    deployed(tmp_path / "out", "--quant_type", "w8a8c8")


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o ro none {disk}"
    if not mounted(mount):
        pytest.skip("mounting a read-only disk needs root")
    refused = deploy_under_mount(mount, disk / "out")
    assert refused.returncode == 2
    assert "cannot create" in refused.stderr
