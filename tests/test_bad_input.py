"""Bad input on the command line: small files, tokenizers, texts, options, places to write to."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockptq_testing.damage import LFS_POINTER, edit_json
from blockptq_testing.models import SHIPPED
from blockptq_testing.program import Argument, run_blockptq
from blockptq_testing.refusal import SHORT, refused

# --- small files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"model_type": "\xff"}', b'{"model_type": "a", "model_type": "b"}', LFS_POINTER],
    ids=["empty", "cut", "array", "utf8", "duplicate", "lfs"],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_files_that_are_no_json_object(tmp_path: Path, model: Path, name: str, content: bytes) -> None:
    (model / name).write_bytes(content)
    assert name in refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_files(tmp_path: Path, model: Path, name: str) -> None:
    (model / name).unlink()
    assert name in refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)


# --- tokenizer -------------------------------------------------------------------------------------


def set_vocabulary_id(piece_index: int, new_id: int) -> Callable[[dict[str, Any]], object]:
    def edit(tokenizer: dict[str, Any]) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary[list(vocabulary)[piece_index]] = new_id

    return edit


TOKENIZER_DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "id_twice": set_vocabulary_id(300, 301),
    "negative_id": set_vocabulary_id(300, -1),
    "id_out_of_range": set_vocabulary_id(300, 2**40),
    "fractional_id": set_vocabulary_id(300, 1.5),  # type: ignore[arg-type]
    "merge_of_a_missing_piece": lambda t: t["model"]["merges"].insert(0, ["no", "such piece"]),
    "merge_of_one_piece": lambda t: t["model"]["merges"].insert(0, ["a"]),
    "other_model": lambda t: t["model"].update(type="Unigram"),
    "unknown_normalizer": lambda t: t.update(normalizer={"type": "Lowercase"}),
    "unknown_pre_tokenizer": lambda t: t.update(pre_tokenizer={"type": "Metaspace", "replacement": "_"}),
    "unknown_post_processor": lambda t: t.update(post_processor={"type": "BertProcessing"}),
    "bad_regular_expression": lambda t: t["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": "(["}),
    "dropout": lambda t: t["model"].update(dropout=0.1),
    "vocabulary_is_an_array": lambda t: t["model"].update(vocab=[]),
    "no_model": lambda t: t.pop("model"),
}


@pytest.mark.parametrize("damage", TOKENIZER_DAMAGE.values(), ids=TOKENIZER_DAMAGE.keys())
def test_bad_tokenizer(tmp_path: Path, model: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    edit_json(model / "tokenizer.json", damage)
    assert "tokenizer.json" in refused("eval", "--model", model, *SHORT, nothing_in=tmp_path)


def test_token_beyond_the_vocabulary(tmp_path: Path, model: Path) -> None:
    """Ids of the tokenizer may exceed the vocabulary (unused ones); the ids of the text may not."""
    text = tmp_path / "text.txt"
    text.write_text("A < strange > token. " * 40)
    added = {"id": 5000, "content": "< strange >", "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}  # fmt: skip
    edit_json(model / "tokenizer.json", lambda tokenizer: tokenizer["added_tokens"].append(added))
    message = refused("eval", "--model", model, *SHORT, "--data", text, nothing_in=tmp_path)
    assert "5000" in message
    assert "4096" in message


# --- text ------------------------------------------------------------------------------------------

BAD_TEXTS: dict[str, tuple[str, bytes]] = {
    "invalid_utf8": ("text.txt", b"good \xc3\x28 bad " * 100),
    "invalid_utf8_in_jsonl": ("text.jsonl", b'{"text": "\xff\xfe"}\n'),
    "surrogates_in_utf8": ("text.txt", b"\xed\xa0\x80" * 100),
    "empty": ("text.txt", b""),
    "empty_jsonl": ("text.jsonl", b""),
    "too_few_tokens": ("text.txt", b"Too short."),
    "jsonl_without_text": ("text.jsonl", b'{"text": "good"}\n{"content": "bad"}\n'),
    "jsonl_with_a_number": ("text.jsonl", b'{"text": 7}\n'),
    "jsonl_no_json": ("text.jsonl", b'{"text": "good"}\n{"text": \n'),
    "gz_truncated": ("text.txt.gz", gzip.compress(b"All is well. " * 1000)[:-9]),
    "gz_that_is_none": ("text.txt.gz", b"All is well. " * 1000),
    "zst_that_is_none": ("text.txt.zst", b"All is well. " * 1000),
    "gz_of_invalid_utf8": ("text.txt.gz", gzip.compress(b"\xff" * 1000)),
}


@pytest.mark.parametrize(("name", "content"), BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_bad_text(tmp_path: Path, name: str, content: bytes) -> None:
    text = tmp_path / name
    text.write_bytes(content)
    assert name in refused("eval", "--model", SHIPPED, *SHORT, "--data", text, nothing_in=tmp_path)


def test_bad_line_is_named_by_its_number(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "good"}\n' * 2 + "bad\n")
    message = refused("eval", "--model", SHIPPED, *SHORT, "--data", text, nothing_in=tmp_path)
    assert "3" in message.split("text.jsonl", 1)[1]


def test_missing_text(tmp_path: Path) -> None:
    args = ("--model", SHIPPED, *SHORT, "--data", tmp_path / "none.txt")
    assert "none.txt" in refused("eval", *args, nothing_in=tmp_path)


# --- usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--seq_lenn", 64), "seq_lenn"),
        (("--seq_len", "many"), "seq_len"),
        (("--seq_len", 0), "seq_len"),
        (("--seq_len", 1), "seq_len"),
        (("--seq_len", -64), "seq_len"),
        (("--seq_len", 10**12), "seq_len"),
        (("--max_chunks", 0), "max_chunks"),
        (("--dtype", "fp64"), "dtype"),
        (("--threads", 0), "threads"),
        (("--threads", -2), "threads"),
        (("--max_memory", "much"), "max_memory"),
        (("--max_memory", "1MB"), "max_memory"),
        (("--data_format", "pdf"), "data_format"),
        (("--dev", "tpu"), "dev"),
        (("--dev", 99), "CUDA"),
        (("--begin", 4, "--end", 2), "begin"),
        (("--begin", -1), "begin"),
        (("--end", 7), "end"),
        (("--end", 100), "end"),
        (("--log_level", "loud"), "log_level"),
        (("surplus",), "surplus"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else value,
)
def test_bad_options(tmp_path: Path, args: tuple[Argument, ...], named: str) -> None:
    given = dict(zip(SHORT[::2], SHORT[1::2], strict=True))
    for option in args[::2]:
        given.pop(str(option), None)
    rest = [word for pair in given.items() for word in pair]
    assert named in refused("eval", "--model", SHIPPED, *rest, *args, nothing_in=tmp_path)


@pytest.mark.parametrize("args", [(), ("frobnicate",), ("eval",), ("--frobnicate",), ("inspect",)])
def test_bad_usage(args: tuple[str, ...]) -> None:
    finished = run_blockptq(*args)
    assert (finished.code, finished.stdout) == (2, "")
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["eval", "inspect"])
def test_folders_that_are_no_checkpoint(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "pickles" / "config.json").write_text(json.dumps({"model_type": "deepseek_v32"}))
    for name in ("none", "file", "empty", "pickles"):
        folder = tmp_path / name
        args = ("--model", folder, *SHORT) if command == "eval" else (folder,)
        assert str(folder) in refused(command, *args, nothing_in=tmp_path)


def test_mtp_of_a_model_without_it(tmp_path: Path, model: Path) -> None:
    edit_json(model / "config.json", lambda config: config.update(num_nextn_predict_layers=0))
    finished = run_blockptq("eval", "--model", model, *SHORT, "--mtp")
    assert finished.code == 2
    assert "MTP" in finished.stderr.splitlines()[-1]


# --- outputs ---------------------------------------------------------------------------------------


def test_file_in_the_way_of_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finished = run_blockptq("eval", "--model", SHIPPED, *SHORT, "--output_dir", tmp_path / "file")
    assert finished.code == 2
    assert str(tmp_path / "file") in finished.stderr


def test_json_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    target = tmp_path / "none" / "result.json"
    finished = run_blockptq("eval", "--model", SHIPPED, *SHORT, "--json", target)
    assert finished.code == 2
    assert "result.json" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o555)
    finished = run_blockptq("eval", "--model", SHIPPED, *SHORT, "--output_dir", folder)
    assert finished.code == 2
    assert str(folder) in finished.stderr
    assert list(folder.iterdir()) == []
