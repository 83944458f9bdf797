"""`blockptq eval` and `inspect` on the shipped model: the numbers of transformers, texts, results."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from blockptq_testing.models import SHIPPED, SHIPPED_BLOCKS, SHIPPED_REFERENCE, clone_model, require_model
from blockptq_testing.program import eval_json, run_blockptq
from blockptq_testing.tensorfile import INDEX_NAME, Checkpoint, read_file
from blockptq_testing.text import wikitext_document

TOLERANCE = {"fp32": 2e-4, "bf16": 5e-3}
SHORT = ("--seq_len", 512, "--max_chunks", 2)
REQUIRED_KEYS = {
    "model", "mode", "quant_type", "data", "seq_len", "chunks", "tokens", "ppl", "nll_per_token", "seconds",
    "tokens_per_second", "peak_rss_bytes", "bytes_read", "checkpoint_bytes",
}  # fmt: skip


def reference_row(folder: Path, seq_len: int, dense: bool = False) -> dict[str, Any]:
    """What transformers computed in fp32."""
    rows: list[dict[str, Any]] = json.loads((folder / "ppl.json").read_text())["results"]
    wanted = ("fp32", seq_len, dense)
    return next(row for row in rows if (row["compute"], row["seq_len"], row.get("dense_attention", False)) == wanted)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("seq_len", [512, 1024, 2048])
def test_perplexity_is_that_of_transformers(tmp_path: Path, dtype: str, seq_len: int) -> None:
    expected = reference_row(SHIPPED_REFERENCE, seq_len)["chunk_nll"][:4]
    result = eval_json(
        tmp_path / "result.json", "--model", SHIPPED, "--dtype", dtype, "--seq_len", seq_len, "--max_chunks", 4,
    )  # fmt: skip
    assert (result["chunks"], result["seq_len"]) == (4, seq_len)
    assert result["ppl"] == pytest.approx(math.exp(np.mean(expected)), rel=TOLERANCE[dtype])


def test_dense_attention_is_that_of_transformers(tmp_path: Path) -> None:
    expected = reference_row(SHIPPED_REFERENCE, 2048, dense=True)
    assert expected["ppl"] != pytest.approx(reference_row(SHIPPED_REFERENCE, 2048)["ppl"], rel=1e-3)
    result = eval_json(
        tmp_path / "result.json", "--model", SHIPPED, "--dtype", "fp32", "--dense_attention",
        "--seq_len", 2048, "--max_chunks", expected["chunks"],
    )  # fmt: skip
    assert result["ppl"] == pytest.approx(expected["ppl"], rel=TOLERANCE["fp32"])


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 2e-4), ("bf16", 1e-2)])
def test_mtp_perplexity_is_that_of_the_reference(tmp_path: Path, dtype: str, tolerance: float) -> None:
    expected = reference_row(SHIPPED_REFERENCE, 512)
    result = eval_json(
        tmp_path / "result.json", "--model", SHIPPED, "--dtype", dtype, "--mtp",
        "--seq_len", 512, "--max_chunks", expected["chunks"],
    )  # fmt: skip
    assert result["ppl"] == pytest.approx(expected["ppl"], rel=TOLERANCE[dtype])
    assert result["mtp_ppl"] == pytest.approx(expected["mtp_ppl"], rel=tolerance)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_perplexity_of_the_bf16_weights(tmp_path: Path, dtype: str) -> None:
    model = require_model("tiny-v32-bf16")
    losses = read_file(model / "reference" / "ref_logits.safetensors")["nll_seq1024"]
    result = eval_json(
        tmp_path / "result.json", "--model", model, "--dtype", dtype, "--seq_len", 1024, "--max_chunks", 1
    )
    assert result["ppl"] == pytest.approx(math.exp(losses.mean()), rel=TOLERANCE[dtype])


@pytest.mark.parametrize("seq_len", [1024, 2048])
def test_perplexity_of_qwen3_moe(tmp_path: Path, seq_len: int) -> None:
    model = require_model("tiny-qwen3moe-bf16")
    expected = reference_row(model / "reference", seq_len)
    result = eval_json(
        tmp_path / "result.json", "--model", model, "--dtype", "fp32",
        "--seq_len", seq_len, "--max_chunks", expected["chunks"],
    )  # fmt: skip
    assert result["ppl"] == pytest.approx(expected["ppl"], rel=TOLERANCE["fp32"])


def test_result_has_the_documented_keys(tmp_path: Path) -> None:
    result = eval_json(tmp_path / "result.json", "--model", SHIPPED, *SHORT)
    assert set(result) >= REQUIRED_KEYS
    assert not {"mtp_ppl", "kl", "top1_agreement"} & set(result), "keys without a value are absent"
    assert result["mode"] == "origin"
    assert result["tokens"] == 2 * 512
    assert result["nll_per_token"] == pytest.approx(math.log(result["ppl"]), rel=1e-9)
    assert result["tokens_per_second"] == pytest.approx(result["tokens"] / result["seconds"])
    index = json.loads((SHIPPED / INDEX_NAME).read_text())
    assert result["checkpoint_bytes"] == index["metadata"]["total_size"]


@pytest.mark.parametrize("flags", [(), ("--mtp",)])
def test_every_byte_is_read_once(tmp_path: Path, flags: tuple[str, ...]) -> None:
    result = eval_json(tmp_path / "result.json", "--model", SHIPPED, *SHORT, *flags)
    assert 0.5 * result["checkpoint_bytes"] < result["bytes_read"] <= 1.02 * result["checkpoint_bytes"]


def test_result_goes_to_stdout_and_nothing_to_stderr() -> None:
    finished = run_blockptq("eval", "--model", SHIPPED, *SHORT)
    assert finished.code == 0
    assert "perplexity" in finished.stdout.lower()
    assert finished.stderr == ""


def test_dashes_and_underscores_name_the_same_option(tmp_path: Path) -> None:
    underscores = eval_json(tmp_path / "1.json", "--model", SHIPPED, *SHORT)
    dashes = eval_json(tmp_path / "2.json", "--model", SHIPPED, "--seq-len", 512, "--max-chunks", 2)
    assert dashes["ppl"] == underscores["ppl"]


def test_number_does_not_depend_on_threads(tmp_path: Path) -> None:
    one = eval_json(tmp_path / "1.json", "--model", SHIPPED, *SHORT, "--dtype", "fp32", "--threads", 1)
    two = eval_json(tmp_path / "2.json", "--model", SHIPPED, *SHORT, "--dtype", "fp32", "--threads", 2)
    assert two["ppl"] == pytest.approx(one["ppl"], rel=1e-6)


def test_number_does_not_depend_on_the_memory_bound(tmp_path: Path) -> None:
    args = ("--model", SHIPPED, "--dtype", "fp32", "--seq_len", 2048, "--max_chunks", 1)
    free = eval_json(tmp_path / "1.json", *args)
    bound = eval_json(tmp_path / "2.json", *args, "--max_memory", "500MB")
    assert bound["ppl"] == pytest.approx(free["ppl"], rel=1e-6)


def zstd_frame(data: bytes) -> bytes:
    """A zstd frame of uncompressed blocks, as the format's RFC 8878 describes it."""
    limit = 1 << 17
    blocks = [data[i : i + limit] for i in range(0, len(data), limit)]
    frame = b"\x28\xb5\x2f\xfd" + b"\xa0" + len(data).to_bytes(4, "little")
    for number, block in enumerate(blocks, start=1):
        is_last = number == len(blocks)
        frame += (is_last | len(block) << 3).to_bytes(3, "little") + block
    return frame


def identity(data: bytes) -> bytes:
    return data


@pytest.fixture(scope="module")
def article() -> str:
    """The beginning of the WikiText-2 test text, a few tokens more than 4 x 512."""
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    ids = json.loads((SHIPPED_REFERENCE / "ref_tokens.json").read_text())
    return str(tokenizer.decode(ids[1:]))


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", identity), (".gz", gzip.compress), (".zst", zstd_frame)], ids=["plain", "gz", "zst"]
)
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_same_document_in_every_format(
    tmp_path: Path, article: str, kind: str, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    content = article if kind == "txt" else json.dumps({"text": article}) + "\n"
    file = tmp_path / f"article.{kind}{suffix}"
    file.write_bytes(pack(content.encode()))
    expected = reference_row(SHIPPED_REFERENCE, 512)["chunk_nll"][:3]
    result = eval_json(
        tmp_path / "result.json", "--model", SHIPPED, "--dtype", "fp32",
        "--data", file, "--seq_len", 512, "--max_chunks", 3,
    )  # fmt: skip
    assert result["nll_per_token"] == pytest.approx(np.mean(expected), abs=5e-5)


def test_wikitext_rows_are_joined_as_documented(tmp_path: Path, article: str) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text(article.replace("\n\n", "\n \n"), encoding="utf-8")
    document = tmp_path / "document.txt"
    document.write_text(wikitext_document(rows), encoding="utf-8")
    as_rows = eval_json(tmp_path / "1.json", "--model", SHIPPED, *SHORT, "--data", rows, "--data_format", "wikitext")
    as_document = eval_json(
        tmp_path / "2.json", "--model", SHIPPED, *SHORT, "--data", document, "--data_format", "text"
    )
    assert as_rows["ppl"] == as_document["ppl"]


def test_final_states_are_those_of_the_reference(tmp_path: Path) -> None:
    file = tmp_path / "final.safetensors"
    eval_json(
        tmp_path / "result.json", "--model", SHIPPED, "--dtype", "fp32", "--seq_len", 512,
        "--max_chunks", 2, "--wikitext_final_out", file,
    )  # fmt: skip
    (states,) = read_file(file).values()
    assert states.size == 2 * 512 * 256
    expected = read_file(SHIPPED_REFERENCE / "ref_hidden.safetensors")["final_norm"]
    np.testing.assert_allclose(states.reshape(-1, 256)[: len(expected)], expected, atol=1e-3)


def test_dry_run_computes_nothing(tmp_path: Path) -> None:
    plan = eval_json(tmp_path / "plan.json", "--model", SHIPPED, *SHORT, "--dry_run")
    assert "ppl" not in plan
    assert plan["blocks"] == SHIPPED_BLOCKS
    assert plan["bytes_to_read"] > 0
    result = eval_json(tmp_path / "result.json", "--model", SHIPPED, *SHORT)
    assert result["bytes_read"] == pytest.approx(plan["bytes_to_read"], rel=0.02)
    assert result["peak_rss_bytes"] <= 1.1 * plan["peak_memory_bytes"]


def test_declared_but_missing_mtp_layer_is_said(tmp_path: Path) -> None:
    model = require_model("tiny-v32-llmcompressor-w4a8")
    finished = run_blockptq("eval", "--model", model, *SHORT)
    assert finished.code == 0, finished.stderr
    assert "MTP" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_rope_parameters_spelling_is_read(tmp_path: Path) -> None:
    """transformers 5 writes rope_parameters where the official config has rope_theta and rope_scaling."""
    model = clone_model(SHIPPED, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    scaling = config.pop("rope_scaling")
    scaling["rope_type"] = scaling.pop("type")
    config["rope_parameters"] = scaling | {"rope_theta": config.pop("rope_theta")}
    (model / "config.json").write_text(json.dumps(config))
    expected = eval_json(tmp_path / "1.json", "--model", SHIPPED, *SHORT)
    assert eval_json(tmp_path / "2.json", "--model", model, *SHORT)["ppl"] == expected["ppl"]


def test_inspect_counts_all_parameters(tmp_path: Path) -> None:
    finished = run_blockptq("inspect", SHIPPED, "--json", tmp_path / "inspect.json")
    assert (finished.code, finished.stderr) == (0, "")
    report = json.loads((tmp_path / "inspect.json").read_text())
    index = json.loads((SHIPPED / INDEX_NAME).read_text())
    assert report["checkpoint_bytes"] == index["metadata"]["total_size"]
    checkpoint = Checkpoint(SHIPPED)
    weights = [checkpoint.info(name) for name in checkpoint.shard_of if not name.endswith("_scale_inv")]
    roles = report["roles"].values()
    assert sum(role["parameters"] for role in roles) == sum(math.prod(weight.shape) for weight in weights)
    assert sum(role["bytes"] for role in roles) == report["checkpoint_bytes"]


def test_version_says_what_was_built() -> None:
    finished = run_blockptq("--version")
    assert finished.code == 0
    assert finished.stdout.startswith("blockptq ")
    assert "CUDA" in finished.stdout


@pytest.mark.parametrize("command", [(), ("eval",), ("inspect",)])
def test_help_is_there(command: tuple[str, ...]) -> None:
    finished = run_blockptq(*command, "--help")
    assert (finished.code, finished.stderr) == (0, "")
    assert "--help" in finished.stdout
