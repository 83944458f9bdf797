"""A job over three hosts of a network of their own: ranks that are killed, hosts whose link goes down."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockptq_testing.models import SHIPPED
from blockptq_testing.network import Network, NoNetworkError, network
from blockptq_testing.program import run_blockptq
from blockptq_testing.ranks import Job, tensor_files

QUANTIZE = ("quantize", "--model", SHIPPED, "--nsamples", 5, "--seq_len", 128, "--eval_chunks", 2, "--eval_seq_len", 128)
LOST_AFTER = 3.0
KILLS = 10 if os.environ.get("BLOCKPTQ_LARGE_TESTS") == "1" else 2


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    try:
        with network(3) as made:
            yield made
    except NoNetworkError as error:
        pytest.skip(f"no network namespaces: {error}")


def finished_units(output: Path) -> int:
    journal = output.with_name(output.name + ".run") / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@dataclass(frozen=True)
class Result:
    files: dict[str, bytes]
    units: int


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("one") / "out"
    done = run_blockptq(*QUANTIZE, "--output", folder, env={"OMP_NUM_THREADS": "1"})
    assert done.code == 0, done.stderr
    return Result(tensor_files(folder), finished_units(folder))


def start(hosts: Network, output: Path, until: int = 0) -> Job:
    """A job, as soon as it has finished so many units."""
    job = Job([(*QUANTIZE, "--output", output)] * 3, lost_after=LOST_AFTER, hosts=hosts.hosts)
    while finished_units(output) < until and job.processes[0].poll() is None:
        time.sleep(0.01)
    return job


def finish(hosts: Network, folder: Path) -> dict[str, bytes]:
    """What the job writes when it is started again."""
    job = start(hosts, folder)
    assert job.wait() == [0, 0, 0], job.errors()
    return tensor_files(folder)


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_rank_is_killed(tmp_path: Path, hosts: Network, expected: Result, seed: int) -> None:
    chance = random.Random(seed)
    victim = chance.randrange(3)
    job = start(hosts, tmp_path / "out", until=chance.randrange(expected.units))
    time.sleep(chance.uniform(0, 0.5))
    job.processes[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    codes = job.wait()
    if codes != [0, 0, 0]:
        assert time.monotonic() - killed < 40  # the others may wait for a rank that never joins
        for rank in {0, 1, 2} - {victim}:
            assert codes[rank] in (0, 1), job.errors()
            assert codes[rank] == 0 or job.errors()[rank].count("\n") == 1
    assert finish(hosts, tmp_path / "out") == expected.files


@pytest.mark.parametrize("cut_off", [0, 2])
def test_a_link_goes_down(tmp_path: Path, hosts: Network, expected: Result, cut_off: int) -> None:
    job = start(hosts, tmp_path / "out", until=expected.units // 2)
    hosts.unplug(cut_off)
    try:
        assert job.wait(timeout=10 * LOST_AFTER) == [1, 1, 1]
    finally:
        hosts.plug_in(cut_off)
    for rank, message in enumerate(job.errors()):
        assert message.count("\n") == 1
        if rank != cut_off:
            assert f"rank {cut_off} " in message
        assert "is lost" in message
        assert "run the same command again to continue" in message
    assert finish(hosts, tmp_path / "out") == expected.files
