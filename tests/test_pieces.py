"""Runs in pieces: cut at any block, continued, refused when something else changed, stopped by signals."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from blockptq_testing.models import SHIPPED, SHIPPED_BLOCKS
from blockptq_testing.program import ENVIRONMENT, Argument, binary, eval_json, run_blockptq, stopped_blockptq
from decode_fp8 import decode

SHORT = ("--model", SHIPPED, "--seq_len", 512, "--max_chunks", 2)
MEDIUM = ("--model", SHIPPED, "--seq_len", 512, "--max_chunks", 32)
LONG = ("--model", SHIPPED, "--seq_len", 1024, "--max_chunks", 128)


@pytest.mark.parametrize("cuts", [(0, 6), (0, 1, 6), (0, 2, 3, 6), (0, 1, 2, 3, 4, 5, 6)])
def test_pieces_give_the_same_number(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    whole = eval_json(tmp_path / "whole.json", *SHORT)
    for begin, end in zip(cuts, cuts[1:], strict=False):
        piece = eval_json(
            tmp_path / "piece.json", *SHORT, "--begin", begin, "--end", end, "--output_dir", tmp_path / "run"
        )
        assert ("ppl" in piece) == (end == SHIPPED_BLOCKS)
    assert piece["ppl"] == whole["ppl"]


def test_mtp_layer_counts_after_the_last_block(tmp_path: Path) -> None:
    whole = eval_json(tmp_path / "whole.json", *SHORT, "--mtp")
    options = (*SHORT, "--mtp", "--output_dir", tmp_path / "run")
    first = eval_json(tmp_path / "first.json", *options, "--start_block_idx", 0, "--end_block_idx", 4)
    assert not {"ppl", "mtp_ppl"} & set(first)
    last = eval_json(tmp_path / "last.json", *options, "--begin", 4, "--end", SHIPPED_BLOCKS + 1)
    assert (last["ppl"], last["mtp_ppl"]) == (whole["ppl"], whole["mtp_ppl"])


def test_bytes_of_the_pieces_add_up(tmp_path: Path) -> None:
    options = (*SHORT, "--output_dir", tmp_path / "run")
    pieces = [eval_json(tmp_path / "piece.json", *options, "--begin", begin, "--end", begin + 3) for begin in (0, 3)]
    assert sum(piece["bytes_read"] for piece in pieces) <= 1.02 * pieces[0]["checkpoint_bytes"]


@pytest.fixture()
def begun(tmp_path: Path) -> Path:
    """A run folder with the first two blocks done."""
    folder = tmp_path / "run"
    eval_json(tmp_path / "first.json", *SHORT, "--begin", 0, "--end", 2, "--output_dir", folder)
    return folder


def refused(*args: Argument) -> str:
    finished = run_blockptq("eval", *args)
    assert (finished.code, finished.stdout) == (2, "")
    assert len(finished.stderr.splitlines()) == 1, finished.stderr
    return finished.stderr


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("--seq_len", 256, "--max_chunks", 2), "seq_len"),
        (("--seq_len", 512, "--max_chunks", 3), "windows"),
        ((*SHORT[2:], "--dtype", "fp32"), "dtype"),
        ((*SHORT[2:], "--dense_attention"), "attention"),
    ],
)
def test_other_settings_are_refused(begun: Path, settings: tuple[Argument, ...], named: str) -> None:
    message = refused("--model", SHIPPED, *settings, "--begin", 2, "--output_dir", begun)
    assert named in message
    assert "run.json" in message


def test_another_text_is_refused(tmp_path: Path, begun: Path) -> None:
    text = tmp_path / "other.txt"
    text.write_text("Another text than before. " * 400)
    assert "text" in refused(*SHORT, "--data", text, "--begin", 2, "--output_dir", begun)


def test_another_model_is_refused(tmp_path: Path, begun: Path) -> None:
    decode(SHIPPED, tmp_path / "decoded", "bf16")
    message = refused("--model", tmp_path / "decoded", *SHORT[2:], "--begin", 2, "--output_dir", begun)
    assert "model" in message


def test_restart_throws_earlier_work_away(tmp_path: Path, begun: Path) -> None:
    options = ("--model", SHIPPED, "--seq_len", 256, "--max_chunks", 2)
    whole = eval_json(tmp_path / "whole.json", *options)
    again = eval_json(tmp_path / "again.json", *options, "--output_dir", begun, "--restart")
    assert again["ppl"] == whole["ppl"]


def test_piece_without_its_input_is_refused(tmp_path: Path) -> None:
    message = refused(*SHORT, "--begin", 2, "--output_dir", tmp_path / "run")
    assert str(tmp_path / "run") in message
    assert "--output_dir" in refused(*SHORT, "--begin", 2)


def test_truncated_state_is_refused(begun: Path) -> None:
    (states,) = begun.glob("*.safetensors")
    os.truncate(states, states.stat().st_size - 1)
    assert states.name in refused(*SHORT, "--begin", 2, "--output_dir", begun)


def test_two_processes_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with stopped_blockptq("eval", *LONG, "--output_dir", folder, until=(folder / "run.json").exists):
        assert str(folder) in refused(*SHORT, "--output_dir", folder)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_the_run_and_keep_the_work(tmp_path: Path, stop: signal.Signals) -> None:
    folder = tmp_path / "run"
    with stopped_blockptq("eval", *LONG, "--output_dir", folder, until=(folder / "run.json").exists) as process:
        process.send_signal(stop)
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=60) == 128 + stop
    assert not list(folder.glob("*.tmp*"))


def test_killed_run_continues(tmp_path: Path) -> None:
    """Killed while or right after it writes states, a run continues from those of block 2 or of block 4."""
    folder = tmp_path / "run"
    whole = eval_json(tmp_path / "whole.json", *MEDIUM)
    eval_json(tmp_path / "piece.json", *MEDIUM, "--end", 2, "--output_dir", folder)
    with stopped_blockptq(
        "eval", *MEDIUM, "--end", 4, "--output_dir", folder, until=lambda: any(folder.glob("states_004*"))
    ) as process:
        process.kill()
        process.wait()
    continued = eval_json(tmp_path / "continued.json", *MEDIUM, "--output_dir", folder)
    assert continued["ppl"] == whole["ppl"]
    assert continued["bytes_read"] < whole["bytes_read"]
    assert not list(folder.glob("*.tmp*"))


def limit_file_size() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))


def test_failing_write_leaves_nothing_half_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finished = run_blockptq(
        "eval", *SHORT, "--begin", 0, "--end", 1, "--output_dir", folder, before_start=limit_file_size
    )
    assert finished.code == 2
    assert len(finished.stderr.splitlines()) == 1
    assert str(folder) in finished.stderr
    assert not [path for path in folder.iterdir() if path.name not in ("run.json", ".lock")]


def test_progress_is_shown_on_a_terminal_only() -> None:
    terminal, other_end = os.openpty()
    process = subprocess.Popen(
        [binary(), "eval", *map(str, SHORT)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=other_end,
        env=ENVIRONMENT,
    )
    os.close(other_end)
    shown = b""
    try:
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    except OSError:  # the last process that held the terminal has gone
        pass
    os.close(terminal)
    process.communicate()
    assert process.returncode == 0
    assert b"token" in shown
