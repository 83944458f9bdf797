"""The likeliest mistakes of a user, on every command that they can happen with: one line that says what is wrong, what
was expected and what to do; exit code 2; no output folder left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockptq_testing.damage import FIRST_SHARD, LFS_POINTER, edit_json, own_copy, replace_file
from blockptq_testing.models import SHIPPED, clone_model
from blockptq_testing.program import Argument, run_blockptq
from blockptq_testing.refusal import refused
from blockptq_testing.tensorfile import INDEX_NAME

Prepare = Callable[[Path, Path], tuple[Argument, ...]]


@dataclass(frozen=True)
class Mistake:
    """`prepare` gets a copy of the model and an empty folder, and returns further options; `named` is what the line
    must contain."""

    prepare: Prepare
    named: tuple[str, ...]
    commands: tuple[str, ...] = ("quantize", "train", "eval", "deploy")


def command_line(command: str, model: Path, out: Path) -> dict[str, Argument]:
    """Options of a short run."""
    text: dict[str, Argument] = {"--seq_len": 64}
    return {
        "quantize": {"--model": model, "--output": out, "--nsamples": 2, "--eval_chunks": 0} | text,
        "train": {"--model": model, "--output_dir": out, "--nsamples": 2} | text,
        "eval": {"--model": model, "--max_chunks": 1} | text,
        "deploy": {"--input_weight_path": model, "--output_weight_path": out, "--quant_type": "w4a8c8"},
    }[command]


def damaged(damage: Callable[[Path], object]) -> Prepare:
    """Does something to the model."""

    def prepare(model: Path, _: Path) -> tuple[Argument, ...]:
        damage(model)
        return ()

    return prepare


def options(*given: Argument) -> Prepare:
    return lambda model, folder: given


def with_text(name: str, content: str | bytes, option: str = "--data") -> Prepare:
    def prepare(_: Path, folder: Path) -> tuple[Argument, ...]:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return (option, folder / name)

    return prepare


def other_model(name: str, make: Callable[[Path], object] = lambda path: None) -> Prepare:
    """Something else in the place of the model's folder."""

    def prepare(_: Path, folder: Path) -> tuple[Argument, ...]:
        make(folder / name)
        return ("MODEL", folder / name)

    return prepare


def pickles(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def rename_architecture(model: Path) -> None:
    edit_json(model / "config.json", lambda config: config.update(model_type="gpt_neox"))


def shrink_vocabulary(model: Path) -> None:
    """As if the tokenizer of another model were there: ids beyond the embedding."""
    edit_json(model / "config.json", lambda config: config.update(vocab_size=2048))


def other_tokenizer(model: Path) -> None:
    def shift(tokenizer: dict) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        tokenizer["model"]["vocab"] = {piece: 100_000 + number for piece, number in vocabulary.items()}

    edit_json(model / "tokenizer.json", shift)


CALIBRATING = ("quantize", "train")
READING = ("quantize", "train", "eval")
WRITING = ("quantize", "deploy")
MISTAKES = {
    "no_such_folder": Mistake(other_model("deepseek-ai/DeepSeek-V3.2"), ("no such folder", "download")),
    "a_file": Mistake(other_model("weights", Path.touch), ("expected a checkpoint folder", "found a file")),
    "empty_folder": Mistake(other_model("empty", Path.mkdir), ("no weights", "expected model.safetensors")),
    "pickles": Mistake(other_model("pickles", pickles), ("pickles", "convert them to safetensors")),
    "lfs_shards": Mistake(damaged(lambda m: replace_file(m / FIRST_SHARD, LFS_POINTER)), (FIRST_SHARD, "git lfs pull")),
    "lfs_index": Mistake(damaged(lambda m: (m / INDEX_NAME).write_bytes(LFS_POINTER)), (INDEX_NAME, "git lfs pull")),
    "lfs_config": Mistake(damaged(lambda m: (m / "config.json").write_bytes(LFS_POINTER)), ("git lfs pull",)),
    "lfs_tokenizer": Mistake(
        damaged(lambda m: (m / "tokenizer.json").write_bytes(LFS_POINTER)), ("tokenizer.json", "git lfs pull")
    ),
    "missing_tokenizer": Mistake(
        damaged(lambda m: (m / "tokenizer.json").unlink()), ("tokenizer.json", "expected", "fetch it"), READING
    ),
    "missing_shard": Mistake(
        damaged(lambda m: (m / FIRST_SHARD).unlink()), (FIRST_SHARD, "1 of 4 shards are missing", "complete the download")
    ),
    "cut_shard": Mistake(
        damaged(lambda m: os.truncate(own_copy(m / FIRST_SHARD), 3_000_000)), (FIRST_SHARD, "partly downloaded")
    ),
    "missing_index": Mistake(damaged(lambda m: (m / INDEX_NAME).unlink()), ("no index", "partly downloaded")),
    "unknown_architecture": Mistake(damaged(rename_architecture), ("gpt_neox", "expected one of", "deepseek_v32")),
    "vocabulary_mismatch": Mistake(damaged(shrink_vocabulary), ("2048", "4096", "embed_tokens")),
    "tokenizer_of_another_model": Mistake(damaged(other_tokenizer), ("tokenizer.json", "added_tokens", "expected 100000"), READING),
    "quant_type": Mistake(options("--quant_type", "w4a4"), ("w4a4", "w4a8c8"), WRITING),
    "recipe": Mistake(options("--recipe", "w4a8"), ("w4a8", "expected a file or one of", "w4a8c8"), CALIBRATING),
    "recipe_file": Mistake(with_text("r.json", '{"linear": []}', "--recipe"), ("r.json", "linear", "linears"), CALIBRATING),
    "format": Mistake(options("--format", "gguf"), ("gguf", "compressed-tensors"), WRITING),
    "missing_text": Mistake(options("--data", "none.jsonl"), ("none.jsonl", "No such file"), READING),
    "text_without_text": Mistake(with_text("a.jsonl", '{"content": "a"}\n'), ("a.jsonl:1", "'text' is missing"), READING),
    "text_of_unknown_format": Mistake(with_text("a.parquet", b"PAR1"), ("a.parquet", "--data_format"), READING),
    "short_text": Mistake(with_text("a.txt", "Too short."), ("a.txt", "tokens", "use more text"), READING),
    "too_many_samples": Mistake(options("--nsamples", 100_000), ("calib", "expected 100000", "use more text"), CALIBRATING),
    "missing_held_out": Mistake(options("--eval_chunks", 1, "--eval_data", "none.txt"), ("none.txt",), ("quantize",)),
    "cuda": Mistake(options("--dev", "99"), ("--dev 99", "cpu"), READING),
    "device_name": Mistake(options("--dev", "gpu"), ("'gpu'", "expected cpu"), READING),
    "json_nowhere": Mistake(options("--json", "no/such/folder/r.json"), ("r.json", "does not exist")),
    "little_memory": Mistake(options("--max_memory", "1MB"), ("--max_memory", "expected at least"), READING),
}


@pytest.mark.parametrize(
    ("name", "command"), [(name, command) for name, mistake in MISTAKES.items() for command in mistake.commands]
)
def test_mistake(tmp_path: Path, model: Path, name: str, command: str) -> None:
    mistake = MISTAKES[name]
    folder = tmp_path / "files"
    folder.mkdir()
    line = command_line(command, model, tmp_path / "out")
    more = mistake.prepare(model, folder)
    for option, value in zip(more[::2], more[1::2], strict=True):
        line[next(iter(line)) if option == "MODEL" else str(option)] = value
    if "--recipe" in line:
        line.pop("--quant_type", None)
    words = [word for pair in line.items() for word in pair]
    if "--json" in line:
        finished = run_blockptq(command, *words)
        assert finished.code == 2 and len(finished.stderr.splitlines()) == 1
        message = finished.stderr
    else:
        message = refused(command, *words, nothing_in=tmp_path)
    for word in mistake.named:
        assert word in message
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.run").exists()


# --- places to write to ---


def quantize(model: Path, out: Path, *more: Argument) -> str:
    """The one line that `quantize` refuses with; empty when it does not."""
    words = [word for pair in command_line("quantize", model, out).items() for word in pair]
    finished = run_blockptq("quantize", *words, *more)
    assert finished.code == (2 if finished.stderr else 0)
    assert len(finished.stderr.splitlines()) <= 1
    return finished.stderr


def test_folders_that_are_taken(tmp_path: Path, model: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    assert "notes.txt" in quantize(model, foreign)
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]
    before = sorted(path.name for path in model.iterdir())
    assert "is the source" in quantize(model, model)
    assert sorted(path.name for path in model.iterdir()) == before
    assert "Not a directory" in quantize(model, foreign / "notes.txt")


def test_a_run_is_continued_with_its_own_settings(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out"
    assert quantize(model, out, "--end", 1) == ""
    for more, named in (
        (("--quant_type", "w8a8c8"), "recipe/linears/1"),
        (("--format", "ascend"), "format"),
        (("--dtype", "fp32"), "dtype"),
    ):
        message = quantize(model, out, *more)
        assert named in message and "--restart" in message
    other = clone_model(SHIPPED, tmp_path / "other")
    edit_json(other / INDEX_NAME, lambda index: index.update(metadata={"total_size": 1}))
    assert "source" in quantize(other, out)


def test_folders_that_are_mixed_up(tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out"
    assert run_blockptq(
        "quantize", "--model", model, "--output", f"{out}/", "--nsamples", 2, "--seq_len", 64, "--eval_chunks", 0
    ).code == 0  # fmt: skip
    run = tmp_path / "out.run"
    for args, named in (
        (("report", out, "--output", tmp_path / "page.html"), str(run)),
        (("eval", "--model", run), "the folder of a run"),
        (("inspect", tmp_path), "neither a checkpoint"),
    ):
        finished = run_blockptq(*args)
        assert finished.code == 2 and named in finished.stderr, finished.stderr
        assert len(finished.stderr.splitlines()) == 1
    again = run_blockptq("quantize", "--model", out, "--output", tmp_path / "twice", "--end", 1, "--nsamples", 1)
    assert again.code == 0 and "quantized already" in again.stderr


@pytest.mark.parametrize("command", ["quantize", "deploy"])
def test_a_rule_that_matches_nothing_is_named(tmp_path: Path, model: Path, command: str) -> None:
    rules = [{"role": "experts.*", "weight_bits": 4, "activation_bits": 8}, {"role": "mlp.*", "weight_bits": 8}]
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"linears": rules}))
    line = command_line(command, model, tmp_path / "out") | {"--recipe": recipe}
    line.pop("--quant_type", None)
    words = [word for pair in line.items() for word in pair]
    finished = run_blockptq(command, *words, "--dry_run")
    assert finished.code == 0
    assert len(finished.stderr.splitlines()) == 1
    assert '"experts.*"' in finished.stderr


@pytest.mark.parametrize("args", [("quantise",), ("plan",), ("plan", "report"), ("plan", "nothing")])
def test_unknown_commands_are_named(args: tuple[str, ...]) -> None:
    finished = run_blockptq(*args)
    assert (finished.code, finished.stdout) == (2, "")
    assert "expected one of: quantize" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
