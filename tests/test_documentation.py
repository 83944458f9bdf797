"""Command lines that the documentation shows: the program understands them; benchmarks start."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from blockptq_testing.program import REPOSITORY, run_blockptq

COMMAND = re.compile(
    r"(?:^|[\s(])(?:build/)?blockptq ((?:plan )?[a-z]+ --[^#`|\n]*|(?:inspect|report) [^#`|\n]*)", re.MULTILINE
)
PLACES = [
    REPOSITORY / "README.md",
    *(path for folder in ("docs", "examples") for path in (REPOSITORY / folder).rglob("*") if path.is_file()),
]
# Without torch in its environment it cannot start.
BENCHMARKS = [path for path in sorted((REPOSITORY / "bench").glob("*.py")) if "transformers" not in path.name]


def documented_commands() -> list[str]:
    """Whole ones; those with an ellipsis are parts."""
    found = []
    for place in PLACES:
        for command in COMMAND.findall(place.read_text().replace("\\\n", " ")):
            if "..." not in command:
                found.append(" ".join(command.split()))
    return sorted(set(found))


def test_there_are_examples_of_every_command() -> None:
    shown = {command.removeprefix("plan ").split()[0] for command in documented_commands()}
    assert shown == {"deploy", "eval", "extract", "inspect", "quantize", "report", "train"}


@pytest.mark.parametrize("command", documented_commands())
def test_the_program_understands_what_is_documented(tmp_path: Path, command: str) -> None:
    arguments = [argument.replace("$", "") for argument in shlex.split(command)]
    done = run_blockptq(*arguments, before_start=lambda: os.chdir(tmp_path))
    assert done.code == 2  # there are no such folders
    assert "see --help" not in done.stderr, done.stderr


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmarks_start(benchmark: Path) -> None:
    environment = {"PYTHONPATH": str(REPOSITORY / "tests")}
    subprocess.run([sys.executable, benchmark, "--help"], check=True, capture_output=True, env=environment)
