"""Jobs of several processes on this host, started as torchrun, srun and mpirun would start them."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .network import Host
from .program import ENVIRONMENT, Argument, binary

Variables = Callable[[int, int], dict[str, str]]


def torchrun(rank: int, size: int) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}


def srun(rank: int, size: int) -> dict[str, str]:
    return {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": str(size), "SLURM_LOCALID": str(rank)}


def mpirun(rank: int, size: int) -> dict[str, str]:
    return {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Job:
    """The processes of one job; `arguments` may differ from rank to rank. `hosts`: one for each; none: all here.

    A rank is lost when it leaves no sign of life for `lost_after` seconds (a busy machine may make one wait for some),
    or does not come within `join_timeout`.
    """

    def __init__(
        self,
        arguments: Sequence[Sequence[Argument]],
        variables: Variables = torchrun,
        lost_after: float = 60,
        join_timeout: float = 60,
        hosts: Sequence[Host] = (),
    ) -> None:
        self._errors = [tempfile.TemporaryFile() for _ in arguments]
        self._outputs = [tempfile.TemporaryFile() for _ in arguments]
        hosts = hosts or [Host("127.0.0.1", ())] * len(arguments)
        common = {"MASTER_ADDR": hosts[0].address, "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
        common |= {"BLOCKPTQ_RANK_TIMEOUT": str(lost_after), "BLOCKPTQ_JOIN_TIMEOUT": str(join_timeout)}
        self.processes = [
            subprocess.Popen(
                [*host.enter, binary(), *map(str, own)], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env={**ENVIRONMENT, **common, **variables(rank, len(arguments))},
            )
            for rank, (host, own, out, err) in enumerate(
                zip(hosts, arguments, self._outputs, self._errors, strict=True)
            )
        ]  # fmt: skip

    def send_when(self, condition: Callable[[], bool], rank: int, signal_number: int) -> None:
        """Sends a rank a signal as soon as `condition` holds; nothing when the rank has ended before."""
        process = self.processes[rank]
        while process.poll() is None:
            if condition():
                process.send_signal(signal_number)
                return
            time.sleep(0.005)

    def wait(self, timeout: float = 120) -> list[int]:
        """Exit codes by rank; everything is killed at the end of the time."""
        end = time.monotonic() + timeout
        try:
            return [process.wait(max(end - time.monotonic(), 0.01)) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    def errors(self) -> list[str]:
        return [self._text(file) for file in self._errors]

    def outputs(self) -> list[str]:
        return [self._text(file) for file in self._outputs]

    @staticmethod
    def _text(file: tempfile._TemporaryFileWrapper[bytes]) -> str:
        file.seek(0, os.SEEK_SET)
        return file.read().decode(errors="surrogateescape")


def run_job(size: int, *arguments: Argument, variables: Variables = torchrun) -> Job:
    """A job that must succeed: silent, and only rank 0 speaks."""
    job = Job([arguments] * size, variables)
    assert job.wait() == [0] * size, job.errors()
    assert job.errors() == [""] * size
    assert job.outputs()[1:] == [""] * (size - 1)
    return job
