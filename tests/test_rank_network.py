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
from blockptq_testing.program import journal_length, run_blockptq
from blockptq_testing.ranks import Job
from blockptq_testing.tensorfile import tensor_files

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


@dataclass(frozen=True)
class Result:
    files: dict[str, bytes]
    units: int


def units_done(output: Path) -> int:
    return journal_length(output.with_name(output.name + ".run"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What one process writes."""
    folder = tmp_path_factory.mktemp("one") / "out"
    done = run_blockptq(*QUANTIZE, "--output", folder, env={"OMP_NUM_THREADS": "1"})
    assert done.code == 0, done.stderr
    return Result(tensor_files(folder), units_done(folder))


def continued(hosts: Network, output: Path) -> dict[str, bytes]:
    """What the job writes when it is started again."""
    job = Job([(*QUANTIZE, "--output", output)] * 3, hosts=hosts.hosts)
    assert job.wait() == [0, 0, 0], job.errors()
    return tensor_files(output)


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_rank_is_killed(tmp_path: Path, hosts: Network, expected: Result, seed: int) -> None:
    chance = random.Random(seed)
    victim, units = chance.randrange(3), chance.randrange(expected.units)
    output = tmp_path / "out"
    job = Job([(*QUANTIZE, "--output", output)] * 3, join_timeout=10, hosts=hosts.hosts)
    job.send_when(lambda: units_done(output) >= units, victim, signal.SIGKILL)
    codes = job.wait()
    for rank in {0, 1, 2} - {victim}:
        assert codes[rank] in (0, 1), job.errors()
        assert codes[rank] == 0 or job.errors()[rank].count("\n") == 1
    assert continued(hosts, output) == expected.files


@pytest.mark.parametrize("cut_off", [0, 2])
def test_a_link_goes_down(tmp_path: Path, hosts: Network, expected: Result, cut_off: int) -> None:
    output = tmp_path / "out"
    job = Job([(*QUANTIZE, "--output", output)] * 3, lost_after=LOST_AFTER, hosts=hosts.hosts)
    while units_done(output) < expected.units // 2:
        assert job.processes[0].poll() is None, job.errors()
        time.sleep(0.005)
    hosts.unplug(cut_off)
    try:
        assert job.wait(timeout=10 * LOST_AFTER) == [1, 1, 1]
    finally:
        hosts.plug_in(cut_off)
    messages = job.errors()
    # Who hears of it through another rank that stops may name that one.
    assert any(f"rank {cut_off} " in message for rank, message in enumerate(messages) if rank != cut_off)
    for message in messages:
        assert message.count("\n") == 1
        assert "is lost" in message
        assert "run the same command again to continue" in message
    assert continued(hosts, output) == expected.files
