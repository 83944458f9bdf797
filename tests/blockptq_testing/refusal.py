"""What a refusal looks like: exit code 2, one line on stderr, nothing written."""

from __future__ import annotations

from pathlib import Path

from .program import Argument, run_blockptq

SHORT = ("--seq_len", 64, "--max_chunks", 1)


def refused(command: str, *args: Argument, nothing_in: Path) -> str:
    """Runs a command that must be refused and leave nothing behind in a folder; returns the message."""
    json_file, run_folder = nothing_in / "result.json", nothing_in / "run"
    outputs: tuple[Argument, ...] = ("--json", json_file)
    if command == "eval":
        outputs += ("--output_dir", run_folder)
    finished = run_blockptq(command, *args, *outputs)
    assert finished.code == 2, (finished.code, finished.stderr)
    # One line, and nothing of a hostile file reaches the terminal as it is.
    assert finished.stderr.endswith("\n")
    assert finished.stderr[:-1].isprintable(), repr(finished.stderr)
    assert finished.stdout == ""
    assert not json_file.exists()
    if run_folder.exists():
        left = {path.name for path in run_folder.iterdir()}
        assert left <= {"run.json", ".lock"}
    return finished.stderr
