"""Runs the program as a user does, and keeps what it printed and what it used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
Argument = str | Path | int | float
# Tests share the machine with each other: threads that spin at barriers would wait for ones that cannot run.
ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", **os.environ}


@dataclass(frozen=True)
class Finished:
    """One finished process. `max_rss` is the peak resident set in bytes as the kernel counted it."""

    code: int
    stdout: str
    stderr: str
    max_rss: int
    seconds: float


def binary() -> Path:
    """The program under test: BLOCKPTQ_BINARY, else the release build of this working tree."""
    path = Path(os.environ.get("BLOCKPTQ_BINARY", REPOSITORY / "build" / "blockptq"))
    if not path.exists():
        raise FileNotFoundError(f"{path}: no program to test; build it or set BLOCKPTQ_BINARY")
    return path


def run_blockptq(
    *args: Argument,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
    before_start: Callable[[], None] | None = None,
) -> Finished:
    """Runs `blockptq args...` to its end; `env` is added to the environment.

    `before_start` is called in the child; it keeps the signals that Python ignores ignored, so that
    a limit on file sizes shows as an error of write() and not as a signal.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        process = subprocess.Popen(
            [binary(), *map(str, args)], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            env={**ENVIRONMENT, **(env or {})}, preexec_fn=before_start,
            restore_signals=before_start is None,
        )  # fmt: skip
        max_rss = _wait(process, start + timeout)
        seconds = time.monotonic() - start
        out.seek(0)
        err.seek(0)
        # Bytes that are no UTF-8 become surrogates, which no test takes for printable.
        stdout, stderr = (file.read().decode(errors="surrogateescape") for file in (out, err))
        return Finished(process.returncode, stdout, stderr, max_rss, seconds)


def succeed(*arguments: Argument) -> str:
    """What a run prints that must end well and in silence."""
    done = run_blockptq(*arguments)
    assert (done.code, done.stderr) == (0, ""), done.stderr
    return done.stdout


def _wait(process: subprocess.Popen[bytes], deadline: float) -> int:
    """Reaps the process, killed at the deadline, and returns its peak resident set in bytes."""
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_maxrss * 1024
        if time.monotonic() > deadline:
            process.kill()
            deadline = float("inf")
        time.sleep(0.005)


def journal_length(run_folder: Path) -> int:
    """How many lines the journal of a run has so far."""
    journal = run_folder / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def killed_blockptq(*args: Argument, run_folder: Path, lines: int, seconds: float) -> bool:
    """Kills a run some seconds after its journal has grown by `lines`; false when it succeeded before."""
    wanted = journal_length(run_folder) + lines
    process = subprocess.Popen(
        [binary(), *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=ENVIRONMENT
    )
    while process.poll() is None and journal_length(run_folder) < wanted:
        time.sleep(0.002)
    try:
        assert process.wait(timeout=seconds) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


@contextmanager
def stopped_blockptq(*args: Argument, until: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is suspended as soon as `until` holds; killed at the end if it still lives."""
    process = subprocess.Popen(
        [binary(), *map(str, args)], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT,
    )  # fmt: skip
    try:
        while not until():
            if process.poll() is not None:
                raise RuntimeError(f"blockptq ended early with exit code {process.returncode}")
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.wait()


def eval_json(json_file: Path, *args: Argument, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Runs `blockptq eval args... --json FILE`, requires success in silence, and returns the JSON."""
    finished = run_blockptq("eval", *args, "--json", json_file, env=env)
    assert finished.code == 0, finished.stderr
    assert finished.stderr == ""
    result: dict[str, Any] = json.loads(json_file.read_text())
    return result
