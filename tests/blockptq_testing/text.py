"""Evaluation text as the program documents it (docs: rows joined by two newlines, one BOS in front)."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer


def wikitext_document(path: Path) -> str:
    """The text of a WikiText file: a row keeps its newline, a blank row is empty, two newlines between."""
    lines = path.read_text(encoding="utf-8").split("\n")
    if lines[-1] == "":
        lines.pop()
    return "\n\n".join(line + "\n" if line.strip() else "" for line in lines)


def encode_chunks(model_dir: Path, document: str, seq_len: int, max_chunks: int) -> list[list[int]]:
    """Token ids of the first chunks, encoded as the model's tokenizer does by default."""
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    ids: list[int] = tokenizer.encode(document).ids
    chunks = [ids[i : i + seq_len] for i in range(0, len(ids) - seq_len + 1, seq_len)]
    return chunks[:max_chunks]
