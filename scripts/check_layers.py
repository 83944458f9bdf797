#!/usr/bin/env python3
"""Checks that every #include between the folders of src/ follows an arrow of src/README.md."""

import pathlib
import re
import sys

SRC = pathlib.Path(__file__).resolve().parent.parent / "src"


def read_arrows() -> dict[str, set[str]]:
    """The `folder -> folders it may include from` table of src/README.md."""
    block = re.search(r"```arrows\n(.*?)```", (SRC / "README.md").read_text(), re.S)
    if block is None:
        sys.exit("src/README.md: no arrows block")
    arrows = {}
    for line in block.group(1).splitlines():
        folder, _, allowed = line.partition("->")
        arrows[folder.strip()] = set(allowed.split())
    return arrows


def violations(arrows: dict[str, set[str]]) -> list[str]:
    """One line for every include that no arrow allows."""
    found = []
    for path in sorted(SRC.rglob("*")):
        if path.suffix not in {".h", ".cpp"}:
            continue
        folder = path.relative_to(SRC).parts[0]
        for number, line in enumerate(path.read_text().splitlines(), 1):
            include = re.match(r'#include "([a-z_]+)/', line)
            if include and include.group(1) not in arrows[folder] | {folder}:
                found.append(f"{path.relative_to(SRC.parent)}:{number}: {folder} must not include {include.group(1)}")
    return found


if __name__ == "__main__":
    bad = violations(read_arrows())
    print("\n".join(bad) if bad else "layers: every include follows an arrow")
    sys.exit(bool(bad))
